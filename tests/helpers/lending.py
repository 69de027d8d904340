"""Pages that lend Chromium's GPU, for tests of browsers as devices."""

from __future__ import annotations

from collections.abc import Sequence

from chromium import FLAGS, find_chromium
from playwright.sync_api import Browser, Page


def start_another(browser: Browser, more: Sequence[str] = ()) -> Browser:
    """A browser of its own beside ``browser``, which a test may kill or let hang; with ``more`` flags."""
    return browser.browser_type.launch(executable_path=find_chromium(), headless=True, args=[*FLAGS, *more])


def lend(browser: Browser, address: str) -> Page:
    """A page that lends; it has joined when its words say so."""
    page = browser.new_page()
    page.goto(address)
    page.wait_for_function("document.getElementById('status').textContent.includes('lent')")
    return page
