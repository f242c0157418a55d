"""A page in headless Chromium: what it drew, what it said in its console, and what it asked the network for."""
import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

NAMES = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'


def find_chromium() -> str | None:
    "Path of a Chromium: that of the environment variable ANCHOR_CACHE_CHROMIUM, or one on the PATH."
    named = os.environ.get('ANCHOR_CACHE_CHROMIUM')
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Watched:
    "A page of Playwright, and what went wrong on it."
    page: Any
    errors: list[str] = field(default_factory=list)  # of the console, and exceptions that nobody caught
    requests: list[str] = field(default_factory=list)  # addresses elsewhere that it asked for

    def check(self) -> None:
        "Raise `AssertionError` for any error in the console, and for any request to another place."
        assert not self.errors, f'console: {self.errors}'
        assert not self.requests, f'requests: {self.requests}'


@contextlib.contextmanager
def open_page(
    width: int = 1280,
    height: int = 900,
    here: tuple[str, ...] = ('file:', 'data:', 'blob:', 'about:'),  # what addresses of this place begin with
    **options: Any,  # of Playwright's `new_page`: color_scheme='dark', say
) -> Iterator[Watched]:
    "A new page that can reach this place and no other; it waits 30 s for whatever it is asked for."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=['--no-sandbox'])
        try:
            watched = Watched(browser.new_page(viewport=dict(width=width, height=height), **options))
            page = watched.page
            def route(route: Any) -> None:
                if route.request.url.startswith(here): return route.continue_()
                watched.requests.append(route.request.url)
                route.abort()
            page.route('**/*', route)
            page.on('console', lambda m: watched.errors.append(m.text) if m.type == 'error' else None)
            page.on('pageerror', lambda error: watched.errors.append(str(error)))
            yield watched
        finally: browser.close()
