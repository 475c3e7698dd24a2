"""What `manage.py load` and `manage.py unload` share: ask, watch the operation's row, tell how it ended."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from loaderd.errors import LoaderdError, UnknownModel
from loaderd.states import OPERATION_ENDED
from modelhub.lifecycle.models import Operation, OperationStatus
from modelhub.lifecycle.notifications import wait_for
from modelhub.registry.artifacts import load_limit_seconds
from modelhub.registry.models import ModelVersion

# How often a bar looks for a new phase; the end itself is notified at once.
REFRESH_SECONDS = 0.25
# Beyond the limits of all the loads asked for, which may have to follow one another.
GRACE_SECONDS = 10.0


class OperationCommand(BaseCommand):
    """Exit status: 0 all succeeded, 1 one failed or did not end in time, 2 wrong usage."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("models", nargs="+", metavar="ID", help="Ids of models, as `manage.py models` lists them.")
        parser.add_argument("--reason", default="", help="Why; kept in the history.")
        parser.add_argument("--user", help="User to act as; without: the operator of this machine.")
        parser.add_argument("--async", action="store_true", dest="is_async", help="Do not wait for the end.")
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print the operations as JSON.")

    @abstractmethod
    def request(self, version: ModelVersion, user: Any, reason: str) -> Operation:
        """Asks for the operation; raises LoaderdError when it is refused."""

    @abstractmethod
    def sentence(self, model_id: str, result: dict[str, Any]) -> str:
        """One line that tells a success."""

    def handle(self, *args: Any, **options: Any) -> None:
        user = user_to_act_as(options["user"])
        outcomes: list[dict[str, Any]] = []
        running: dict[str, Operation] = {}
        for model_id in dict.fromkeys(options["models"]):
            try:
                running[model_id] = self.request(registered(model_id), user, options["reason"])
            except (LoaderdError, PermissionDenied) as error:
                outcomes.append(_refused(model_id, error))
        if not options["is_async"]:
            running = _watch(running, quiet=options["as_json"] or not self.stderr.isatty())
        outcomes += [_outcome(model_id, operation) for model_id, operation in running.items()]
        self._tell(outcomes, options["is_async"], options["as_json"])
        if any(_is_failure(outcome, options["is_async"]) for outcome in outcomes):
            raise SystemExit(1)

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
    version = ModelVersion.objects.select_related("lineage").filter(model_id=model_id).first()
    if version is None:
        raise UnknownModel(f"No model has the id {model_id!r}; `manage.py models` lists those that are registered.")
    return version


def print_json(command: BaseCommand, value: Any) -> None:
    command.stdout.write(json.dumps(value, indent=2, default=str))


def _watch(running: dict[str, Operation], quiet: bool) -> dict[str, Operation]:
    """Waits for each end, showing phases on the terminal; an operation past its time comes back as it stands."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[phase]}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), disable=quiet) as progress:
        bars = {
            model_id: progress.add_task(f"{operation.kind} {model_id}", total=1.0, phase=operation.status)
            for model_id, operation in running.items()
        }
        deadline = (
            time.monotonic()
            + GRACE_SECONDS
            + sum(load_limit_seconds(operation.version) for operation in running.values())
        )
        pending = [model_id for model_id, operation in running.items() if not operation.is_ended]
        while pending and time.monotonic() < deadline:
            # Each round waits for one end and looks at all.
            running[pending[0]] = wait_for(running[pending[0]].id, REFRESH_SECONDS if not quiet else 1.0)
            ids = {operation.id: model_id for model_id, operation in running.items()}
            for operation in Operation.objects.filter(id__in=ids):
                running[ids[operation.id]] = operation
                phase = operation.status if operation.is_ended else operation.phase or operation.status
                done = 1.0 if operation.is_ended else operation.progress
                progress.update(bars[ids[operation.id]], completed=done, phase=phase)
            pending = [model_id for model_id in pending if not running[model_id].is_ended]
    return running


def _refused(model_id: str, error: Exception) -> dict[str, Any]:
    told = error.to_message() if isinstance(error, LoaderdError) else _as_message(error)
    return {"model_id": model_id, "operation": None, "status": "refused", "result": None, "error": told}


def _as_message(error: Exception) -> dict[str, Any]:
    return {"code": "permission_denied", "message": str(error), "facts": {}}


def _outcome(model_id: str, operation: Operation) -> dict[str, Any]:
    return {
        "model_id": model_id,
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
