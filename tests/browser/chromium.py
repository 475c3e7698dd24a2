"""The system's Chromium: where it is, how it is started, and `python -m tests.browser.chromium`, which installs it.

Playwright drives the browser that the system has; it never fetches one of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

from playwright.sync_api import Browser, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = ("chromium", "fonts-liberation")
ADVICE = (
    "No Chromium was found, and the browser tests need one. Debian: apt-get install chromium fonts-liberation. "
    "Elsewhere install Chromium or Chrome, and name its program with CHROMIUM=/path/to/it if it is not in PATH."
)
INSTALL_SECONDS = 900


def find(environment: Mapping[str, str] = os.environ) -> str | None:
    """The path of a Chromium or Chrome: that of CHROMIUM, else the first of NAMES in PATH; None without any."""
    wanted = (environment["CHROMIUM"],) if environment.get("CHROMIUM") else NAMES
    found = (shutil.which(name, path=environment.get("PATH")) for name in wanted)
    return next(filter(None, found), None)


def launch(playwright: Playwright) -> Browser:
    """A browser without a window. Raises RuntimeError with advice where there is no Chromium.

    It resolves no name, so what a page asked of the internet fails on every machine alike.
    """
    program = find()
    if program is None:
        raise RuntimeError(ADVICE)
    arguments = ["--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium's sandbox refuses to run as root
    return playwright.chromium.launch(executable_path=program, args=arguments)


def install() -> bool:
    """Installs Debian's packages; False where there is no apt-get, no right to, or it failed and said why."""
    if shutil.which("apt-get") is None:
        return False
    if os.geteuid() == 0:
        rights: tuple[str, ...] = ()
    elif shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        rights = ("sudo", "-n")
    else:
        return False
    print(f"Installing {' '.join(PACKAGES)} for the browser tests (once)", flush=True)
    quiet = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq")
    # Lists that cannot all be fetched may still have what is needed, so the install decides.
    steps = ((*quiet, "update"), (*quiet, "install", "-y", "--no-install-recommends", *PACKAGES))
    told = ""
    for step in steps:
        done = subprocess.run(
            [*rights, *step], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
        told += done.stdout[-2000:] + done.stderr[-2000:]
    if done.returncode != 0:
        print(told, file=sys.stderr)
    return done.returncode == 0


def main() -> int:
    """0 when there is a Chromium at the end. Nothing is done, and nothing said, where there is one already."""
    if find() is None:
        if os.environ.get("CHROMIUM"):
            print(f"CHROMIUM={os.environ['CHROMIUM']} is no program.", file=sys.stderr)
        else:
            install()
    if find() is None:
        print(ADVICE, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
