"""Chromium for the tests of the page: Debian's package, with its own software GPU (SwiftShader)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from chromium import FLAGS, Serve, find_chromium
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from synthetic_bundle import SyntheticBundle, make_bundle

from wgtune.support.errors import BundleError
from wgtune.web.built_pages import app_dir
from wgtune.web.server import BundleServer


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=find_chromium(), headless=True, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """An empty profile, in which nothing is stored yet."""
    made = browser.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    made.set_default_timeout(60_000)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A fresh page; a script error that nobody caught fails the test."""
    made = context.new_page()
    errors: list[str] = []
    made.on("pageerror", lambda error: errors.append(str(error)))
    yield made
    assert not errors


@pytest.fixture(scope="session", autouse=True)
def app() -> Path:
    """The built page's folder."""
    try:
        return app_dir()
    except BundleError as error:
        pytest.fail(f"{error.message}; {error.hint}", pytrace=False)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> SyntheticBundle:
    """A whole small bundle, for tests that do not change it."""
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def serve() -> Iterator[Serve]:
    """Starts a server for a folder and returns its URL; all end with the session."""
    with ExitStack() as stack:

        def start(folder: Path) -> str:
            return stack.enter_context(BundleServer(folder)).url

        yield start
