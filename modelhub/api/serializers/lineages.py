"""How a lineage is told: its versions, its names and where they lead, its traffic, its history."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.reverse import reverse

from loaderd.rules import CANDIDATE, LIVE
from modelhub.api.fields import UnixTimeField
from modelhub.api.serializers.models import ModelSummarySerializer
from modelhub.api.serializers.operations import ReasonSerializer
from modelhub.api.serializers.performance import LatencySerializer
from modelhub.lifecycle.models import LineageChange
from modelhub.registry.choices import ModelType
from modelhub.registry.models import Alias, Model


class AliasSerializer(serializers.ModelSerializer):
    model_id = serializers.CharField(source="version.model_id")
    version = serializers.CharField(source="version.version")
    set_at = UnixTimeField()

    class Meta:
        model = Alias
        fields = ("name", "model_id", "version", "set_at", "set_by")


class SetAliasSerializer(ReasonSerializer):
    model_id = serializers.CharField(help_text="A version of this lineage.")


class TrafficSerializer(serializers.Serializer):
    """Where the requests for the bare name go."""

    live = serializers.SerializerMethodField()
    candidate = serializers.SerializerMethodField()
    candidate_percent = serializers.FloatField(help_text="Share of the requests that `candidate` answers, 0 to 100.")
    shadow = serializers.BooleanField(help_text="`candidate` gets a copy of what `live` answers.")
    since = UnixTimeField(source="traffic_changed_at", allow_null=True, help_text="When it was set.")

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_live(self, lineage: Model) -> str | None:
        return leads_to(lineage, LIVE)

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_candidate(self, lineage: Model) -> str | None:
        return leads_to(lineage, CANDIDATE)


class SetTrafficSerializer(ReasonSerializer):
    """What is absent stays as it is."""

    candidate_percent = serializers.FloatField(required=False, min_value=0, max_value=100)
    shadow = serializers.BooleanField(required=False, allow_null=True, default=None)


class LineageLinksSerializer(serializers.Serializer):
    self = serializers.CharField()
    rollback = serializers.CharField()
    history = serializers.CharField()
    aliases = serializers.CharField()
    traffic = serializers.CharField()
    comparison = serializers.CharField()


class LineageSerializer(serializers.Serializer):
    """An entry of the list. Needs `aliases__version` prefetched and `version_count` annotated."""

    name = serializers.CharField()
    type = serializers.ChoiceField(choices=ModelType.choices)
    description = serializers.CharField()
    created_at = UnixTimeField()
    live = serializers.SerializerMethodField(help_text="Id of the version that answers the bare name.")
    aliases = serializers.SerializerMethodField(help_text="Name -> id of a version.")
    candidate_percent = serializers.FloatField()
    shadow = serializers.BooleanField()
    version_count = serializers.IntegerField()
    links = serializers.SerializerMethodField()

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_live(self, lineage: Model) -> str | None:
        return leads_to(lineage, LIVE)

    def get_aliases(self, lineage: Model) -> dict[str, str]:
        return {alias.name: alias.version.model_id for alias in lineage.aliases.all()}

    @extend_schema_field(LineageLinksSerializer)
    def get_links(self, lineage: Model) -> dict[str, str]:
        own = reverse("lineage-detail", kwargs={"name": lineage.name})
        return {
            "self": own,
            **{part: f"{own}/{part}" for part in ("rollback", "history", "aliases", "traffic", "comparison")},
        }


class LineageDetailSerializer(LineageSerializer):
    """Needs context: "previous" (a version or None), "versions" (all, highest first) and "loader"."""

    previous = serializers.SerializerMethodField(help_text="Where a rollback would lead.")
    traffic = serializers.SerializerMethodField()
    versions = serializers.SerializerMethodField(help_text="All of them, the highest version first.")

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_previous(self, lineage: Model) -> str | None:
        previous = self.context["previous"]
        return previous.model_id if previous is not None else None

    @extend_schema_field(TrafficSerializer)
    def get_traffic(self, lineage: Model) -> dict[str, Any]:
        return dict(TrafficSerializer(lineage).data)

    @extend_schema_field(ModelSummarySerializer(many=True))
    def get_versions(self, lineage: Model) -> Any:
        context = {"loader": self.context["loader"], "include_loaded": True}
        return ModelSummarySerializer(self.context["versions"], many=True, context=context).data


class PeriodSerializer(serializers.Serializer):
    """A time in which one version was live."""

    model_id = serializers.CharField(source="version_id", help_text="Kept when the model is gone.")
    since = UnixTimeField()
    until = UnixTimeField(allow_null=True, help_text="Null: it still is.")
    kind = serializers.CharField(help_text="How it became live: first, activate or rollback.")
    reason = serializers.CharField()
    actor = serializers.CharField()
    operation = serializers.CharField(source="operation_id", allow_null=True)


class LineageChangeSerializer(serializers.ModelSerializer):
    """One move of one alias, or a change of the traffic. Ids stay when their models are gone."""

    at = UnixTimeField()
    model_id = serializers.SerializerMethodField(help_text="Where the alias leads from then on.")
    previous = serializers.SerializerMethodField(help_text="Where it led before.")
    operation = serializers.UUIDField(source="operation_id", allow_null=True)
    details = serializers.DictField(help_text="Of the traffic: candidate_percent, shadow.")

    class Meta:
        model = LineageChange
        fields = ("at", "kind", "alias", "model_id", "previous", "reason", "actor", "operation", "details")

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_model_id(self, change: LineageChange) -> str | None:
        return change.version.model_id if change.version is not None else change.details.get("version_id")

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_previous(self, change: LineageChange) -> str | None:
        return change.previous.model_id if change.previous is not None else change.details.get("previous_id")


class HistorySerializer(serializers.Serializer):
    """Who was live when, and every change, newest first."""

    lineage = serializers.CharField()
    periods = PeriodSerializer(many=True, help_text="The newest, API_LIST_LIMIT at most.")
    changes = LineageChangeSerializer(many=True, help_text="limit and offset choose a part; see the headers.")


class SideSerializer(serializers.Serializer):
    model_id = serializers.CharField()
    version = serializers.CharField()
    requests = serializers.IntegerField()
    errors = serializers.IntegerField()
    error_rate = serializers.FloatField()
    latency_ms = LatencySerializer()


class ComparisonSerializer(serializers.Serializer):
    """Both versions side by side, since the split was set."""

    lineage = serializers.CharField()
    since = UnixTimeField()
    last_at = UnixTimeField()
    is_current = serializers.BooleanField(help_text="False: of the split before; nothing was seen under the present.")
    compared = serializers.IntegerField(help_text="Items whose two answers were compared.")
    disagreed = serializers.IntegerField()
    disagreement_rate = serializers.FloatField(allow_null=True, help_text="disagreed / compared.")
    dropped = serializers.IntegerField(help_text="Copies that were not sent: too many were under way.")
    live = SideSerializer()
    candidate = SideSerializer()


def leads_to(lineage: Model, name: str) -> str | None:
    """Id of the version that the alias leads to; reads `aliases.all()`, prefetched or not."""
    return next((alias.version.model_id for alias in lineage.aliases.all() if alias.name == name), None)
