"""Which browsers lend their GPUs: pages come and go, a loan stays. For several threads, and without a network."""

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
from .page_link import Farewell, PageLink

_JOIN_S = 3.0
"""A page whose address was opened needs a moment to join."""

_GO_ON = "type the same command again, which goes on where it stopped, and open the address that it prints"


class Loan:
    """One browser's GPU, lent by the page that joined first, or by the one that took its place.

    ``device`` is told from others of its key by ``index``. ``resources`` are arrays that the page may fetch, by name.
    """

    def __init__(self, loans: Loans, device: Device, page: PageLink) -> None:
        self.device = device
        self.page = page
        self.resources: dict[str, np.ndarray] = {}
        self.fetched_bytes = 0
        self.over = False
        self._loans = loans
        self._why = ""

    @property
    def why(self) -> str:
        """Why no page lends the GPU now; "" where one does."""
        if not self.page.gone:
            return ""
        return self._why or ("the page was closed" if self.page.left else "the page does not answer")

    def take(self, page: PageLink) -> None:
        """Goes on with ``page``; called by `Loans`."""
        before, self.page, self._why = self.page, page, ""
        if not before.gone:
            before.end(deliberate=False)
            before.hang_up(Farewell.REFUSED, "Another page of this browser has taken this one's place.")

    def wait_for_page(self) -> PageLink:
        """The page that is there, or the next that takes its place; raises DeviceError where none does in time."""
        return self._loans.wait_for_page(self)

    def reopen(self, page: PageLink, reason: str) -> None:
        """Sends ``page`` away until it has opened its GPU anew; ``reason`` says why it must."""
        self._why = f"its GPU could not be opened again ({reason}); wait, or restart the browser"
        page.end(deliberate=False)
        page.hang_up(Farewell.REOPEN, f"The GPU could not be opened again: {reason}.")

    def end(self) -> None:
        """Nothing more is asked of the page."""
        self._loans.end(self)


class Loans:
    """Lets pages in, each by a token that serves once, or by the key that it was given when it was here before.

    A page takes the place of one that is away, where its browser and its GPU are the same, or begins a loan of its own:
    as many as there are browsers, or ``at_most`` so many.
    """

    def __init__(
        self, address: Callable[[str], str], announce: Callable[[str], None], wait_s: float, at_most: int | None
    ) -> None:
        """``address`` makes an address of a token; ``announce`` is told in words what to open while a page is missing.

        A page is waited for ``wait_s`` seconds.
        """
        self.wait_s = wait_s
        self.until = float("inf")
        """No page is waited for beyond this time (of time.monotonic)."""
        self._address = address
        self._announce = announce
        self._at_most = at_most
        self._token = secrets.token_urlsafe(16)
        self._keys: set[str] = set()
        self._loans: list[Loan] = []
        self._over = False
        self._changed = threading.Condition()

    @property
    def address(self) -> str:
        """What to open in a browser now; it serves once."""
        return self._address(self._token)

    def all(self) -> list[Loan]:
        """Every loan that was ever begun, in that order."""
        with self._changed:
            return list(self._loans)

    def first(self, announce: Callable[[str], None] | None = None) -> Loan:
        """The first loan whose page is there; waited for, and raises DeviceError where no page joins in time.

        ``announce`` is told instead of the usual one.
        """
        self._wait(lambda: any(not loan.page.gone for loan in self._loans), lambda: "", announce or self._announce)
        return next(loan for loan in self.all() if not loan.page.gone)

    def wait_for_page(self, loan: Loan) -> PageLink:
        """As `Loan.wait_for_page`."""
        self._wait(lambda: not loan.page.gone, lambda: loan.why, self._announce)
        return loan.page

    def end(self, loan: Loan) -> None:
        """As `Loan.end`."""
        with self._changed:
            loan.over = True
            self._keys.discard(loan.page.key)
        if not loan.page.gone:
            loan.page.hang_up(Farewell.OVER, "")

    def end_all(self) -> None:
        """Ends every loan; whoever waits for a page waits no more."""
        for loan in self.all():
            self.end(loan)
        with self._changed:
            self._over = True
            self._changed.notify_all()

    # What the server asks

    def knows(self, token: str) -> bool:
        """Whether an address with this token may still join."""
        return _same(token, self._token)

    def admit(self, token: str, key: str) -> str | None:
        """The page's key; None where it is not let in."""
        with self._changed:
            if key and any(_same(key, known) for known in self._keys):
                return key
            if token and _same(token, self._token):
                self._token = secrets.token_urlsafe(16)
                key = secrets.token_urlsafe(24)
                self._keys.add(key)
                return key
        return None

    def lent_by(self, key: str) -> Loan | None:
        """The loan of the page with this key."""
        with self._changed:
            return next((loan for loan in self._loans if _same(key, loan.page.key)), None)

    def join(self, page: PageLink) -> str:
        """Lets a page lend; what to tell it where it may not, else ""."""
        with self._changed:
            open_loans = [loan for loan in self._loans if not loan.over]
            fitting = [loan for loan in open_loans if _fits(loan.device, page.device)]
            loan = next((loan for loan in fitting if _same(page.key, loan.page.key)), None)
            loan = loan or next((loan for loan in fitting if loan.page.gone), None)
            if loan is None and self._at_most is not None and len(self._loans) >= self._at_most:
                if not fitting:
                    tuned = ", ".join(loan.device.key for loan in self._loans)
                    self._announce(f"a page joined with {page.device.key} in {page.device.driver}: it was sent away")
                    return f"{tuned} is being tuned, and this is {page.device.key} in {page.device.driver}."
                loan = fitting[0]
            if loan is None:
                index = sum(1 for loan in self._loans if loan.device.key == page.device.key)
                self._loans.append(Loan(self, replace(page.device, index=index), page))
            else:
                loan.take(page)
            self._changed.notify_all()
        return ""

    def notice(self) -> None:
        """A page's connection has ended."""
        with self._changed:
            self._changed.notify_all()

    def _wait(self, holds: Callable[[], bool], why: Callable[[], str], announce: Callable[[str], None]) -> None:
        begun = time.monotonic()
        deadline = max(begun, min(begun + self.wait_s, self.until))
        told, told_s = "", 0.0
        while True:
            with self._changed:
                if self._over:
                    raise DeviceError("the page is served no more", _GO_ON)
                if holds():
                    return
                token, reason = self._token, why()
            # An address that was opened in vain is told anew, but a page that opened it needs a moment to join.
            if told != token and time.monotonic() - told_s > _JOIN_S:
                address = self._address(token)
                if reason:
                    announce(f"{reason}: open {address} there")
                else:
                    announce(f"open {address} in the browser whose GPU is to be tuned")
                told, told_s = token, time.monotonic()
            if time.monotonic() >= deadline:
                ended = f"{reason}, and " if reason else ""
                raise DeviceError(f"{ended}no browser joined within {deadline - begun:.3g} s", _GO_ON)
            with self._changed:
                if not holds():
                    self._changed.wait(min(max(0.0, deadline - time.monotonic()), 0.5))


def _fits(lent: Device, found: Device) -> bool:
    """Whether a page's GPU is the one that a loan is about: another version of the browser is another driver."""
    return lent.key == found.key and lent.driver == found.driver


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
