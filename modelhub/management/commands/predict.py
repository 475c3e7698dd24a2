"""Asks a loaded model."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.table import Table

from loaderd.errors import LoaderdError
from modelhub.actors import actor_of
from modelhub.inference import client
from modelhub.management.operating import print_json, user_to_act_as


class Command(BaseCommand):
    help = "Predicts with a loaded model: TEXTs, or JSON from --input or standard input."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", metavar="ID", help="Id of a model, or a lineage's name.")
        parser.add_argument("texts", nargs="*", metavar="TEXT", help="Texts to predict.")
        parser.add_argument("--input", help='JSON list of texts or rows, e.g. "[[5.1, 3.5, 1.4, 0.2]]".')
        parser.add_argument("--user", help="User to act as; without: the operator of this machine.")
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print the answer as JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        user = user_to_act_as(options["user"])
        if user is not None and not user.has_perm("registry.predict_modelversion"):
            raise CommandError(f"{user} lacks the permission registry.predict_modelversion.")
        inputs = _inputs(options["texts"], options["input"])
        name = actor_of(user)
        try:
            answer = client.predict(options["model"], inputs, user=name, timeout_seconds=client.time_limit_seconds())
        except LoaderdError as error:
            raise CommandError(error.message) from error
        if options["as_json"]:
            print_json(self, answer)
        else:
            Console(file=self.stdout._out).print(_table(inputs, answer))


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
