"""One `up` per state folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from modelhub.launch.preflight import NotReady


class InstanceLock:
    """Held from construction to `close` or the end of the process, however that ends. Raises NotReady when taken."""

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / "up.lock"
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._descriptor, 20, 0).decode().strip()
            self.close()
            raise NotReady(
                f"Modelhub runs already in {state_dir} (pid {pid}); stop it first, or set another MODELHUB_STATE_DIR."
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        os.close(self._descriptor)
