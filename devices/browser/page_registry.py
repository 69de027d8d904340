"""Registry of the browsers whose GPUs are measured, and of the page that each has open. Thread-safe, no network.

A browser stays registered while its pages come and go: another page of the same browser and GPU continues its work.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...support.errors import DeviceError
from ..device import Device
from .page_link import CloseCode, PageLink

_JOIN_S = 3.0
"""Seconds that a page needs at most between its address being opened and joining."""

_HINT = "type the same command again, which goes on where it stopped, and open the address that it prints"


class RegisteredBrowser:
    """One browser's GPU, and the page that gives access to it.

    Attributes:
        device: The GPU. ``index`` tells apart browsers that have the same key.
        page: The current page, connected or not.
        resources: Arrays that the page may fetch, by name.
        fetched_bytes: Bytes of resources fetched so far.
        released: Whether the GPU is no longer needed.
    """

    def __init__(self, registry: PageRegistry, device: Device, page: PageLink) -> None:
        self.device = device
        self.page = page
        self.resources: dict[str, np.ndarray] = {}
        self.fetched_bytes = 0
        self.released = False
        self._registry = registry
        self._reopen_reason = ""

    @property
    def absence_reason(self) -> str:
        """Why no page is connected; "" where one is."""
        if not self.page.gone:
            return ""
        return self._reopen_reason or ("the page was closed" if self.page.left else "the page does not answer")

    def replace_page(self, page: PageLink) -> None:
        """Continue with ``page``, and close the previous page's connection. Called by `PageRegistry`."""
        previous, self.page, self._reopen_reason = self.page, page, ""
        if not previous.gone:
            previous.end(deliberate=False)
            previous.hang_up(CloseCode.REFUSED, "Another page of this browser has taken this one's place.")

    def wait_for_page(self) -> PageLink:
        """Return the connected page, or the next one to join; raises DeviceError where none joins in time."""
        return self._registry.wait_for_page(self)

    def require_reopen(self, page: PageLink, reason: str) -> None:
        """Disconnect ``page`` until it has reopened its GPU; ``reason`` says why that is needed."""
        self._reopen_reason = f"its GPU could not be opened again ({reason}); wait, or restart the browser"
        page.end(deliberate=False)
        page.hang_up(CloseCode.REOPEN, f"The GPU could not be opened again: {reason}.")

    def release(self) -> None:
        """Tell the page that it may be closed. Nothing more is asked of it."""
        self._registry.release(self)


class PageRegistry:
    """Admits pages, and assigns each to a registered browser.

    A page is admitted by a token, valid once, or by the key that it was given when it joined before. A page whose
    browser and GPU equal those of a registered browser without a page continues that one; otherwise it registers a new
    browser, up to ``at_most`` of them.
    """

    def __init__(
        self, address: Callable[[str], str], announce: Callable[[str], None], wait_s: float, at_most: int | None
    ) -> None:
        """Start an empty registry.

        Args:
            address: Makes the address to open from a token.
            announce: Called with a sentence that says what to open, while a page is waited for.
            wait_s: Seconds to wait for a page.
            at_most: Number of browsers that may register; None for any number.
        """
        self.wait_s = wait_s
        self.until = float("inf")
        """Time (of time.monotonic) after which no page is waited for."""
        self._address = address
        self._announce = announce
        self._at_most = at_most
        self._token = secrets.token_urlsafe(16)
        self._keys: set[str] = set()
        self._browsers: list[RegisteredBrowser] = []
        self._closed = False
        self._changed = threading.Condition()

    @property
    def address(self) -> str:
        """Address to open in a browser next; valid for one page."""
        return self._address(self._token)

    def browsers(self) -> list[RegisteredBrowser]:
        """Return every browser that ever registered, in order of registration."""
        with self._changed:
            return list(self._browsers)

    def wait_for_first(self, announce: Callable[[str], None] | None = None) -> RegisteredBrowser:
        """Return the first browser with a connected page; raises DeviceError where no page joins in time.

        ``announce`` replaces the registry's own for this wait.
        """
        self._wait(lambda: any(not each.page.gone for each in self._browsers), lambda: "", announce or self._announce)
        return next(each for each in self.browsers() if not each.page.gone)

    def wait_for_page(self, browser: RegisteredBrowser) -> PageLink:
        """Return the connected page of ``browser``, as `RegisteredBrowser.wait_for_page`."""
        self._wait(lambda: not browser.page.gone, lambda: browser.absence_reason, self._announce)
        return browser.page

    def release(self, browser: RegisteredBrowser) -> None:
        """Release ``browser``, as `RegisteredBrowser.release`; its page's key is no longer valid."""
        with self._changed:
            browser.released = True
            self._keys.discard(browser.page.key)
        if not browser.page.gone:
            browser.page.hang_up(CloseCode.OVER, "")

    def close(self) -> None:
        """Release every browser. Threads that wait for a page get a DeviceError."""
        for browser in self.browsers():
            self.release(browser)
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # Called by the server.

    def accepts(self, token: str) -> bool:
        """Return whether a page with this token may join."""
        return _same(token, self._token)

    def admit(self, token: str, key: str) -> str | None:
        """Return the key of a page that opens with ``token`` or ``key``; None where neither is valid."""
        with self._changed:
            if key and any(_same(key, known) for known in self._keys):
                return key
            if token and _same(token, self._token):
                self._token = secrets.token_urlsafe(16)
                key = secrets.token_urlsafe(24)
                self._keys.add(key)
                return key
        return None

    def find(self, key: str) -> RegisteredBrowser | None:
        """Return the browser whose current page has this key."""
        with self._changed:
            return next((browser for browser in self._browsers if _same(key, browser.page.key)), None)

    def join(self, page: PageLink) -> str:
        """Assign ``page`` to a browser; returns "", or the reason to tell the page where it may not join."""
        with self._changed:
            candidates = [each for each in self._browsers if not each.released and _fits(each.device, page.device)]
            browser = next((each for each in candidates if _same(page.key, each.page.key)), None)
            browser = browser or next((each for each in candidates if each.page.gone), None)
            if browser is None and self._at_most is not None and len(self._browsers) >= self._at_most:
                if not candidates:
                    tuned = ", ".join(each.device.key for each in self._browsers)
                    self._announce(f"a page joined with {page.device.key} in {page.device.driver}: it was sent away")
                    return f"{tuned} is being tuned, and this is {page.device.key} in {page.device.driver}."
                browser = candidates[0]
            if browser is None:
                index = sum(1 for each in self._browsers if each.device.key == page.device.key)
                self._browsers.append(RegisteredBrowser(self, replace(page.device, index=index), page))
            else:
                browser.replace_page(page)
            self._changed.notify_all()
        return ""

    def page_disconnected(self) -> None:
        """Wake threads that wait: a page's connection has ended."""
        with self._changed:
            self._changed.notify_all()

    def _wait(self, holds: Callable[[], bool], reason: Callable[[], str], announce: Callable[[str], None]) -> None:
        """Return once ``holds``; announce the address meanwhile. Raises DeviceError after the time, or if closed."""
        started = time.monotonic()
        deadline = max(started, min(started + self.wait_s, self.until))
        announced_token, announced_at = "", 0.0
        while True:
            with self._changed:
                if self._closed:
                    raise DeviceError("the page is served no more", _HINT)
                if holds():
                    return
                token, why = self._token, reason()
            # A token that was used without joining is replaced: announce the new one, after the page had time to join.
            if announced_token != token and time.monotonic() - announced_at > _JOIN_S:
                address = self._address(token)
                if why:
                    announce(f"{why}: open {address} there")
                else:
                    announce(f"open {address} in the browser whose GPU is to be tuned")
                announced_token, announced_at = token, time.monotonic()
            if time.monotonic() >= deadline:
                ended = f"{why}, and " if why else ""
                raise DeviceError(f"{ended}no browser joined within {deadline - started:.3g} s", _HINT)
            with self._changed:
                if not holds():
                    self._changed.wait(min(max(0.0, deadline - time.monotonic()), 0.5))


def _fits(registered: Device, found: Device) -> bool:
    """Return whether both are the same GPU in the same browser; another version of the browser is another driver."""
    return registered.key == found.key and registered.driver == found.driver


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
