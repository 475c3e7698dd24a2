"""A person at a browser: logged in, every request noted, nothing wrong overlooked."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response, WebError

HOST = "127.0.0.1"
ACTION_MS = 10_000
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}


class Visit:
    """One browser context with one page.

    page: its page. urls: all addresses that it asked for. problems: lines about what should not happen: an error on the
    console, an exception in a script, an answer of 500 or more, a request to another host. `expect_problem(pattern)`
    names one that a test provokes.
    """

    def __init__(
        self,
        browser: Browser,
        web: str,
        session: str | None = None,
        *,
        dark: bool = False,
        phone: bool = False,
        scale: float = 1.0,
    ) -> None:
        self.urls: list[str] = []
        self.problems: list[str] = []
        self._expected: list[re.Pattern[str]] = []
        self.context: BrowserContext = browser.new_context(
            base_url=web,
            viewport=PHONE if phone else DESKTOP,
            device_scale_factor=scale,
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",  # what is looked at stands still
            locale="en-GB",
            timezone_id="UTC",
        )
        self.context.set_default_timeout(ACTION_MS)
        self.context.on("request", self._request)
        self.context.on("response", self._response)
        self.context.on("console", self._console)
        self.context.on("weberror", self._exception)
        if session is not None:
            self.context.add_cookies([{"name": "sessionid", "value": session, "domain": HOST, "path": "/"}])
        self.page: Page = self.context.new_page()

    def expect_problem(self, pattern: str) -> None:
        """What matches, before or after, is no problem."""
        self._expected.append(re.compile(pattern))

    def unexpected(self) -> list[str]:
        return [line for line in self.problems if not any(pattern.search(line) for pattern in self._expected)]

    def keep(self, folder: Path, name: str) -> None:
        """Writes what the page shows, and the trace, if one was begun."""
        folder.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=folder / f"{name}.png", full_page=True)
        self.context.tracing.stop(path=folder / f"{name}.zip")

    def _request(self, request: Request) -> None:
        self.urls.append(request.url)
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob", "about") and address.hostname != HOST:
            self.problems.append(f"request to another host: {request.url}")

    def _response(self, response: Response) -> None:
        if response.status >= 500:
            self.problems.append(f"{response.status} from {response.url}")

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _exception(self, error: WebError) -> None:
        self.problems.append(f"exception: {error.error.message}\n{error.error.stack or ''}")
