"""Django's signing key: made once, kept beside the state."""

from __future__ import annotations

import contextlib
import os
import secrets

from modelhub.conf import Config, refuse


def secret_key(config: Config) -> str:
    """SECRET_KEY, or the key of `<state>/secret_key`, which is made when it is missing.

    Several processes may start at once: one writes, all read the same. Raises BadSetting when the state
    folder cannot be used.
    """
    if config.SECRET_KEY:
        return config.SECRET_KEY
    path = config.MODELHUB_STATE_DIR / "secret_key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            # Written whole under another name, then linked: a reader never sees half a key.
            unfinished = path.with_name(f"secret_key.{os.getpid()}.{secrets.token_hex(4)}")
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(64))
            with contextlib.suppress(FileExistsError):
                os.link(unfinished, path)
            unfinished.unlink()
        key = path.read_text().strip()
    except OSError as error:
        state_dir = str(config.MODELHUB_STATE_DIR)
        way_out = "make it writable for this user, or name another folder or a SECRET_KEY"
        refuse([f"MODELHUB_STATE_DIR={state_dir!r} cannot be used: {error}; {way_out}."])
    if not key:
        refuse([f"{path} is empty; delete it, and a new key is made (everyone must log in again)."])
    return key
