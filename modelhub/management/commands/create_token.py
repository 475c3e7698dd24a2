"""Makes an API token for a user and prints it, alone or as JSON."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from modelhub.accounts.models import ApiToken
from modelhub.management.operating import print_json


class Command(BaseCommand):
    help = "Makes an API token for USER and prints only the token. It cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", metavar="USER", help="User name that the token acts as.")
        parser.add_argument("--name", default="", help="What the token is for.")
        parser.add_argument(
            "--json", action="store_true", dest="as_json", help="Print the token and its facts as JSON."
        )
        parser.add_argument("--expires-days", type=float, help="Days until it expires. Without: it does not expire.")

    def handle(self, *args: Any, **options: Any) -> None:
        days: float | None = options["expires_days"]
        if days is not None and not 0 < days <= 36_500:
            raise CommandError(f"--expires-days {days:g} is not between 0 and 36500.", returncode=2)
        user = get_user_model().objects.filter(username=options["user"]).first()
        if user is None:
            raise CommandError(f"No user is named {options['user']!r}; make one with manage.py createsuperuser.")
        if not user.is_active:
            raise CommandError(f"{user} is not active, so a token of this user would be refused.")
        expiry = None if days is None else timedelta(days=days)
        made, token = ApiToken.objects.create(user, expiry=expiry, name=options["name"])
        if options["as_json"]:
            print_json(self, {"token": token, "user": options["user"], "name": made.name, "expires_at": made.expiry})
        else:
            self.stdout.write(token)
