"""What the commands share that change a record at once: who acts, and one line for what was refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from django.core.exceptions import PermissionDenied
from django.core.management.base import BaseCommand, CommandError, CommandParser

from loaderd.errors import LoaderdError


class DecisionCommand(BaseCommand):
    """Exit status: 0 done, 1 refused, 2 wrong usage."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--user", help="User to act as; without: the operator of this machine.")
        parser.add_argument("--reason", default="", help="Why; kept in the history.")
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON.")


@contextlib.contextmanager
def refusals_told() -> Iterator[None]:
    """Turns a refusal into the command's end with status 1 and its sentence."""
    try:
        yield
    except LoaderdError as error:
        raise CommandError(error.message, returncode=1) from error
    except PermissionDenied as error:
        raise CommandError(str(error), returncode=1) from error
