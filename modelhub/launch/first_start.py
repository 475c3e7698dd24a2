"""What only a first start does: an admin to log in as, and models to look at."""

from __future__ import annotations

import secrets
from pathlib import Path

from django.contrib.auth import get_user_model

from modelhub.conf import Config


def make_first_admin(config: Config) -> str | None:
    """Makes an admin when there is none; the line to print, or None when there is one already."""
    users = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return None
    name = config.DJANGO_SUPERUSER_USERNAME or "admin"
    if users.filter(username=name).exists():
        return f"No admin exists and {name} is an ordinary user; make an admin with `manage.py createsuperuser`."
    password = config.DJANGO_SUPERUSER_PASSWORD or secrets.token_urlsafe(12)
    users.create_superuser(name, config.DJANGO_SUPERUSER_EMAIL, password)
    if config.DJANGO_SUPERUSER_PASSWORD:
        return f"First admin: {name}, with the password of DJANGO_SUPERUSER_PASSWORD."
    return f"First admin: {name}, password: {password} (shown this once)"


def wants_sample_models(config: Config) -> bool:
    """Whether the store holds no model yet and samples are not switched off. Raises OSError."""
    return config.SAMPLE_MODELS and not _holds_a_model(config.MODELS_DIR)


def _holds_a_model(store: Path) -> bool:
    return any(
        model.is_dir() for kind in store.iterdir() if kind.is_dir() and kind.name[0] != "." for model in kind.iterdir()
    )
