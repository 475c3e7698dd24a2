"""What the commands that ask loaderd for something share: ask or plan, watch the operation, tell how it ended."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.core.management.base import BaseCommand, CommandError, CommandParser

from loaderd.errors import LoaderdError, UnknownModel
from loaderd.states import OPERATION_ENDED
from modelhub.lifecycle.models import Operation, OperationStatus
from modelhub.management.plans import in_words, is_refused
from modelhub.management.tables import in_units
from modelhub.management.watching import watch
from modelhub.registry.models import Model, ModelVersion


class OperationCommand(BaseCommand):
    """Exit status: 0 all succeeded, 1 one failed, was refused or did not end in time, 2 wrong usage.

    Of a dry run: 0 all could be done, 1 one could not.
    """

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_subjects(parser)
        parser.add_argument("--reason", default="", help="Why; kept in the history.")
        parser.add_argument("--user", help="User to act as; without: the operator of this machine.")
        parser.add_argument("--dry-run", action="store_true", help="Tell what would happen and change nothing.")
        parser.add_argument("--async", action="store_true", dest="is_async", help="Do not wait for the end.")
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print the operations as JSON.")

    def add_subjects(self, parser: CommandParser) -> None:
        """What the command is about: here, any number of models."""
        parser.add_argument(
            "models", nargs="+", metavar="ID", help="Ids of models, or names of lineages: their live versions."
        )

    def subjects(self, options: dict[str, Any]) -> Sequence[str]:
        """Names of what is asked for, each an operation of its own."""
        return list(dict.fromkeys(options["models"]))

    @abstractmethod
    def request(self, subject: str, user: Any, options: dict[str, Any]) -> Operation:
        """Asks for the operation; raises LoaderdError when it is refused."""

    @abstractmethod
    def plan(self, subject: str, options: dict[str, Any]) -> dict[str, Any]:
        """What would happen: the plan, with "decision" and "sentence", or with the "error" that there would be.

        Raises LoaderdError.
        """

    @abstractmethod
    def sentence(self, subject: str, result: dict[str, Any]) -> str:
        """One line that tells a success."""

    def handle(self, *args: Any, **options: Any) -> None:
        user = user_to_act_as(options["user"])
        failed = self._plan(options) if options["dry_run"] else self._carry_out(user, options)
        if failed:
            raise SystemExit(1)

    def _plan(self, options: dict[str, Any]) -> bool:
        """Prints what would happen; whether something could not be."""
        plans = []
        for subject in self.subjects(options):
            try:
                plans.append(self.plan(subject, options))
            except LoaderdError as error:
                plans.append({"model_id": subject, "error": error.to_message()})
        if options["as_json"]:
            print_json(self, plans)
        else:
            for plan in plans:
                if is_refused(plan):
                    self.stderr.write(self.style.ERROR(in_words(plan)))
                else:
                    self.stdout.write(in_words(plan))
        return any(map(is_refused, plans))

    def _carry_out(self, user: Any, options: dict[str, Any]) -> bool:
        """Asks, waits and tells; whether something failed."""
        is_async, as_json = options["is_async"], options["as_json"]
        outcomes: list[dict[str, Any]] = []
        running: dict[str, Operation] = {}
        for subject in self.subjects(options):
            try:
                running[subject] = self.request(subject, user, options)
            except (LoaderdError, PermissionDenied) as error:
                outcomes.append(_refused(subject, error))
        if not is_async:
            running = watch(running, quiet=as_json or not self.stderr.isatty())
        outcomes += [_outcome(subject, operation) for subject, operation in running.items()]
        self._tell(outcomes, is_async, as_json)
        return any(_is_failure(outcome, is_async) for outcome in outcomes)

    def _tell(self, outcomes: Sequence[dict[str, Any]], is_async: bool, as_json: bool) -> None:
        if as_json:
            print_json(self, list(outcomes))
            return
        for outcome in outcomes:
            if _is_failure(outcome, is_async):
                error = outcome["error"] or {"message": f"{outcome['model_id']}: still {outcome['status']}."}
                self.stderr.write(self.style.ERROR(error["message"]))
            elif outcome["status"] == OperationStatus.SUCCEEDED:
                self.stdout.write(self.sentence(outcome["model_id"], outcome["result"] or {}))
            else:
                self.stdout.write(f"{outcome['model_id']}: {outcome['status']}, operation {outcome['operation']}")


def user_to_act_as(username: str | None) -> Any:
    """The user of that name, or None for the operator of this machine, who may do everything. Exits with 2."""
    if username is None:
        return None
    user = get_user_model().objects.filter(username=username, is_active=True).first()
    if user is None:
        raise CommandError(f"No active user is named {username!r}.", returncode=2)
    return user


def registered(model_id: str) -> ModelVersion:
    """The model with exactly that id; raises UnknownModel."""
    version = ModelVersion.objects.select_related("lineage").filter(model_id=model_id).first()
    if version is None:
        raise UnknownModel(f"No model has the id {model_id!r}; `manage.py models` lists those that are registered.")
    return version


def lineage_named(name: str) -> Model:
    """Raises UnknownModel."""
    lineage = Model.objects.filter(name=name).first()
    if lineage is None:
        raise UnknownModel(f"No lineage is named {name!r}; `manage.py versions` lists them.")
    return lineage


def memory_of(size_bytes: int | None) -> str:
    return "memory not measured" if size_bytes is None else in_units(size_bytes)


def print_json(command: BaseCommand, value: Any) -> None:
    command.stdout.write(json.dumps(value, indent=2, default=str))


def _refused(subject: str, error: Exception) -> dict[str, Any]:
    told = error.to_message() if isinstance(error, LoaderdError) else _as_message(error)
    return {"model_id": subject, "operation": None, "status": "refused", "result": None, "error": told}


def _as_message(error: Exception) -> dict[str, Any]:
    return {"code": "permission_denied", "message": str(error), "facts": {}}


def _outcome(subject: str, operation: Operation) -> dict[str, Any]:
    return {
        "model_id": subject,
        "operation": str(operation.id),
        "status": str(operation.status),
        "result": operation.result,
        "error": operation.error,
    }


def _is_failure(outcome: dict[str, Any], is_async: bool) -> bool:
    has_ended = outcome["status"] in OPERATION_ENDED
    return outcome["status"] != OperationStatus.SUCCEEDED and (
        has_ended or outcome["status"] == "refused" or not is_async
    )
