"""Asks a loaded model: some inputs, or a file of them."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.table import Table

from loaderd.errors import LoaderdError
from modelhub.actors import actor_of
from modelhub.inference import client
from modelhub.jobs.formats import FORMATS
from modelhub.jobs.options import MAX_BATCH_ROWS, SCORES, Options
from modelhub.jobs.pinning import pinned
from modelhub.management.operating import print_json, user_to_act_as
from modelhub.management.predicting import FilePrediction

MOST_AT_ONCE = 16


class Command(BaseCommand):
    help = (
        "Predicts with a loaded model: TEXTs, or JSON from --input or standard input; or every row of a file, with "
        "--file and --out."
    )

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        # --version is a model's here, not Django's.
        return super().create_parser(prog_name, subcommand, conflict_handler="resolve", **options)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", metavar="ID", help="Id of a model, or a lineage's name.")
        parser.add_argument("texts", nargs="*", metavar="TEXT", help="Texts to predict.")
        parser.add_argument("--input", help='JSON list of texts or rows, e.g. "[[5.1, 3.5, 1.4, 0.2]]".')
        parser.add_argument("--user", help="User to act as; without: the operator of this machine.")
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print the answer as JSON.")
        parser.add_argument("--version", dest="version_asked", default="", help="Version or alias of the lineage.")
        _add_file_arguments(
            parser.add_argument_group("Files", "CSV, JSON lines or Parquet, row by row; see docs/batch.md.")
        )

    def handle(self, *args: Any, **options: Any) -> None:
        user = user_to_act_as(options["user"])
        if user is not None and not user.has_perm("registry.predict_modelversion"):
            raise CommandError(f"{user} lacks the permission registry.predict_modelversion.")
        name = actor_of(user)
        if options["file"] is not None or options["out"] is not None:
            self._predict_file(name, options)
            return
        inputs = _inputs(options["texts"], options["input"])
        model = options["model"]
        try:
            if options["version_asked"]:
                model = pinned(model, options["version_asked"]).model_id
            answer = client.predict(model, inputs, user=name, timeout_seconds=client.time_limit_seconds())
        except LoaderdError as error:
            raise CommandError(error.message) from error
        if options["as_json"]:
            print_json(self, answer)
        else:
            Console(file=self.stdout._out).print(_table(inputs, answer))

    def _predict_file(self, name: str, options: dict[str, Any]) -> None:
        if options["file"] is None or options["out"] is None:
            raise CommandError("--file and --out go together.", returncode=2)
        if options["texts"] or options["input"] is not None:
            raise CommandError("Give TEXTs, --input or --file, not two of them.", returncode=2)
        how = Options(
            columns=tuple(options["columns"] or ()),
            delimiter=_delimiter(options["delimiter"]),
            header=not options["no_header"],
            scores=options["scores"],
            prefix=options["prefix"],
            strict=options["strict"],
            batch_rows=options["batch_size"],
            guard_formulas=not options["no_formula_guard"],
        )
        prediction = FilePrediction(
            options["file"], options["out"], options["input_format"], options["out_format"], how
        )
        done = prediction.run(
            options["model"],
            options["version_asked"],
            name,
            resume=options["resume"],
            overwrite=options["overwrite"],
            concurrency=options["concurrency"],
            patience_seconds=options["wait"],
            quiet=options["as_json"],
        )
        told = {"model_id": done.model_id, "rows": done.rows, "rows_failed": done.failed, "out": options["out"]}
        if options["as_json"] and options["out"] != "-":
            print_json(self, told)
        else:
            failed = f", {done.failed:,} of them with an error" if done.failed else ""
            self.stderr.write(f"{done.model_id}: {done.rows:,} rows{failed}.")


def _add_file_arguments(files: Any) -> None:
    files.add_argument("--file", metavar="PATH", help="File to predict; - reads standard input.")
    files.add_argument("--out", metavar="PATH", help="Where the result goes; - writes to standard output.")
    files.add_argument("--input-format", choices=FORMATS, help="Without: by the name of the file.")
    files.add_argument("--out-format", choices=FORMATS, help="Without: by the name, or as the input's.")
    files.add_argument("--column", action="append", dest="columns", metavar="NAME",
                       help="Column with the input; once for each column of a row. Without: by name.")  # fmt: skip
    files.add_argument("--delimiter", default=",", help="Between the fields of CSV; \\t or tab is a tabulator.")
    files.add_argument("--no-header", action="store_true", help="CSV without names: the columns are 1, 2, ….")
    files.add_argument("--scores", choices=SCORES, default="json", help="A classifier's scores: one column or many.")
    files.add_argument("--prefix", default="", help="Before the names of the columns that are added.")
    files.add_argument("--strict", action="store_true", help="End at the first row that cannot be predicted.")
    files.add_argument("--no-formula-guard", action="store_true",
                       help="CSV: write texts as they are, also those that a spreadsheet would run.")  # fmt: skip
    files.add_argument("--resume", action="store_true", help="Go on with what an earlier run left.")
    files.add_argument("--overwrite", action="store_true", help="Replace a result that is there.")
    files.add_argument("--batch-size", type=_within(1, MAX_BATCH_ROWS), metavar="ROWS",
                       help="Rows in one request at most. Without: as many as take a short while.")  # fmt: skip
    files.add_argument("--concurrency", type=_within(1, MOST_AT_ONCE), default=1, help="Requests at the same time.")
    files.add_argument("--wait", type=_within(0, 86400), default=60, metavar="SECONDS",
                       help="How long to wait for a model that does not answer for now; 60.")  # fmt: skip


def _within(least: int, most: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ArgumentTypeError(f"{value} is not from {least} to {most}")
        return value

    number.__name__ = "whole number"
    return number


def _delimiter(text: str) -> str:
    value = {"\\t": "\t", "tab": "\t"}.get(text, text)
    if len(value) != 1 or value in '"\r\n':
        raise CommandError("--delimiter must be one character, neither a quote nor the end of a line.", returncode=2)
    return value


def _inputs(texts: list[str], text_of_json: str | None) -> list[Any]:
    """The inputs from the one place that has them; exits with 2 when none or two have."""
    if texts and text_of_json is not None:
        raise CommandError("Give TEXTs or --input, not both.", returncode=2)
    if texts:
        return list(texts)
    if text_of_json is None:
        if sys.stdin.isatty():
            raise CommandError("Give TEXTs, --input, or JSON on standard input.", returncode=2)
        text_of_json = sys.stdin.read()
    try:
        inputs = json.loads(text_of_json)
    except ValueError as error:
        raise CommandError(f"The input is no JSON: {error}.", returncode=2) from error
    # What the API takes as its body is taken here too.
    if isinstance(inputs, dict):
        inputs = inputs.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise CommandError("The input must be a list of texts or of rows, with at least one.", returncode=2)
    return inputs


def _table(inputs: list[Any], answer: dict[str, Any]) -> Table:
    table = Table(title=f"{answer['model_id']}, {answer['latency_ms']:.1f} ms", title_justify="left")
    for heading in ("input", "label or output", "score"):
        table.add_column(heading, overflow="fold")
    for value, prediction in zip(inputs, answer["predictions"], strict=True):
        score = prediction.get("score")
        told = prediction["label"] if "label" in prediction else json.dumps(prediction.get("output"))
        table.add_row(
            value if isinstance(value, str) else json.dumps(value), str(told), "" if score is None else f"{score:.3f}"
        )
    return table
