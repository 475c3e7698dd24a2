"""Approves the files of a model whose format can run code, or takes that back."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.core.management.base import BaseCommand, CommandError, CommandParser

from loaderd.errors import UnknownModel
from modelhub.management.operating import registered, user_to_act_as
from modelhub.registry.approval import ApprovalRefused, approve, revoke


class Command(BaseCommand):
    help = (
        "Approves exactly the present files of a model, for formats that can run code (pickle, joblib, SavedModel). "
        "Exit status: 0, or 1 when it was refused."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model_id", metavar="ID", help="Id of a model, as `manage.py models` lists it.")
        parser.add_argument("--user", help="User to act as; without: the operator of this machine.")
        parser.add_argument("--digest", help="Approve only if the files have this digest.")
        parser.add_argument("--revoke", action="store_true", help="Take the approval back.")

    def handle(self, *args: Any, **options: Any) -> None:
        user = user_to_act_as(options["user"])
        try:
            version = registered(options["model_id"])
            if options["revoke"]:
                revoke(version, user)
                self.stdout.write(f"{version}: approval taken back; what is in memory stays there.")
            else:
                approve(version, user, options["digest"])
                self.stdout.write(f"{version}: approved, {version.artifact_format}, digest {version.approved_digest}")
        except UnknownModel as error:
            raise CommandError(error.message, returncode=1) from error
        except (ApprovalRefused, PermissionDenied) as error:
            raise CommandError(str(error), returncode=1) from error
