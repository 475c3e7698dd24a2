"""How a job is told, what asks for one, and what the list of jobs may be asked."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from modelhub.api.fields import NamedChoiceField, UnixTimeField
from modelhub.api.serializers.body import RequestSerializer
from modelhub.jobs.folders import JobFolder
from modelhub.jobs.formats import FORMATS, format_of
from modelhub.jobs.models import Job, JobState
from modelhub.jobs.options import MAX_BATCH_ROWS, SCORES, Options
from modelhub.jobs.submitting import submit

FLAGS = ("true", "false")


class JobSerializer(serializers.ModelSerializer):
    model = serializers.CharField(source="model_name", help_text="As it was asked for.")
    model_id = serializers.CharField(help_text="The version that answers, chosen at the job's start; empty before.")
    owner = serializers.CharField(source="owner_name")
    created_at = UnixTimeField()
    started_at = UnixTimeField(allow_null=True)
    finished_at = UnixTimeField(allow_null=True)
    format = serializers.CharField(source="input_format")
    progress = serializers.FloatField(allow_null=True, help_text="0.0 to 1.0; null until the rows are counted.")
    rows_per_second = serializers.FloatField(allow_null=True)
    remaining_seconds = serializers.FloatField(allow_null=True)
    result = serializers.SerializerMethodField(help_text="Where the result is; null until there is one.")

    class Meta:
        model = Job
        fields = (
            "id", "state", "model", "model_id", "owner", "input_name", "format", "output_format", "options",
            "rows_total", "rows_done", "rows_failed", "progress", "rows_per_second", "remaining_seconds", "seconds",
            "problem", "error", "created_at", "started_at", "finished_at", "input_bytes", "result_bytes", "result",
        )  # fmt: skip
        read_only_fields = fields

    def get_result(self, job: Job) -> str | None:
        return f"/api/jobs/{job.pk}/result" if job.state == JobState.SUCCEEDED else None


class JobQuerySerializer(serializers.Serializer):
    state = NamedChoiceField(choices=JobState.choices, required=False)
    model = serializers.CharField(required=False, help_text="As it was asked for, or the version's id.")


class RetrySerializer(RequestSerializer):
    from_start = serializers.BooleanField(
        required=False, default=False, help_text="Throw away what is written, and choose the version anew."
    )


class SubmitSerializer(RequestSerializer):
    """A form, multipart/form-data."""

    file = serializers.FileField(allow_empty_file=True, help_text="CSV, JSON lines or Parquet; see docs/batch.md.")
    model = serializers.CharField(max_length=200, help_text="A lineage's name or the id of a model.")
    version = serializers.CharField(max_length=64, required=False, default="", help_text="Version or alias.")
    format = NamedChoiceField(choices=FORMATS, required=False, help_text="Without: by the name of the file.")
    output_format = NamedChoiceField(choices=FORMATS, required=False, help_text="Without: as the input's.")
    column = serializers.ListField(
        child=serializers.CharField(trim_whitespace=False), required=False, default=list, max_length=10_000,
        help_text="Column with the input; once for each column of a row. Without: by name.",
    )  # fmt: skip
    delimiter = serializers.CharField(
        max_length=1, required=False, default=",", trim_whitespace=False, help_text="Between the fields of CSV."
    )
    header = NamedChoiceField(choices=FLAGS, required=False, default="true", help_text="CSV names its columns.")
    scores = NamedChoiceField(choices=SCORES, required=False, default="json", help_text="Of a classifier.")
    prefix = serializers.CharField(
        max_length=64, required=False, default="", help_text="Before the names of the added columns."
    )
    strict = NamedChoiceField(
        choices=FLAGS, required=False, default="false", help_text="The first row that cannot be predicted ends it."
    )
    guard_formulas = NamedChoiceField(
        choices=FLAGS, required=False, default="true",
        help_text="In a CSV result a ' before texts that a spreadsheet would run.",
    )  # fmt: skip
    batch_size = serializers.IntegerField(
        min_value=1, max_value=MAX_BATCH_ROWS, required=False, help_text="Rows in one request at most."
    )

    def validate_delimiter(self, value: str) -> str:
        if value in '"\r\n':
            raise serializers.ValidationError("Must be one character, neither a quote nor the end of a line.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        kind = attrs.get("format") or format_of(attrs["file"].name or "")
        if kind is None:
            told = f"The name of the file does not tell it; give one of {', '.join(FORMATS)}."
            raise serializers.ValidationError({"format": [told]})
        return {**attrs, "format": kind, "output_format": attrs.get("output_format") or kind}

    def submit(self, folder: JobFolder, user: Any) -> Job:
        """The queued job over the folder's input, of a valid form. Raises as `submitting.submit` does."""
        given = self.validated_data
        return submit(
            folder,
            model=given["model"],
            version=given["version"],
            user=user,
            input_name=given["file"].name,
            input_format=given["format"],
            output_format=given["output_format"],
            options=self.options(),
        )

    def options(self) -> Options:
        given = self.validated_data
        return Options(
            columns=tuple(given["column"]),
            delimiter=given["delimiter"],
            header=given["header"] == "true",
            scores=given["scores"],
            prefix=given["prefix"],
            strict=given["strict"] == "true",
            batch_rows=given.get("batch_size"),
            guard_formulas=given["guard_formulas"] == "true",
        )
