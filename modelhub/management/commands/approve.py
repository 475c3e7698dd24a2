"""Approves the files of a model whose format can run code, or takes that back."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.core.management.base import BaseCommand, CommandError, CommandParser

from loaderd.errors import UnknownModel
from modelhub.management.operating import print_json, registered, user_to_act_as
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
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print the approval as JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        user = user_to_act_as(options["user"])
        try:
            version = registered(options["model_id"])
            if options["revoke"]:
                revoke(version, user)
                told = f"{version}: approval taken back; what is in memory stays there."
            else:
                approve(version, user, options["digest"])
                told = f"{version}: approved, {version.artifact_format}, digest {version.approved_digest}"
        except UnknownModel as error:
            raise CommandError(error.message, returncode=1) from error
        except (ApprovalRefused, PermissionDenied) as error:
            raise CommandError(str(error), returncode=1) from error
        if not options["as_json"]:
            self.stdout.write(told)
            return
        facts = {
            "model_id": version.model_id,
            "approved": version.is_approved,
            "digest": version.digest,
            "approved_by": user.get_username() if user and version.is_approved else None,
            "approved_at": version.approved_at,
        }
        print_json(self, facts)
