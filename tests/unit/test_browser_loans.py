"""Which page lends to which loan: tokens, keys, pages that leave, come back, or are somebody else's. No browser."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from wgtune.devices.browser.identity import browser_device
from wgtune.devices.browser.page_link import Farewell, PageLink
from wgtune.devices.browser.page_registry import Loans
from wgtune.devices.device import Device
from wgtune.support.errors import DeviceError
from wgtune.tuner.fleet.browser_source import Browsers


def adapter(version: int = 156, **words: str) -> dict[str, Any]:
    known = {"vendor": "google", "architecture": "swiftshader", "device": "", "description": ""}
    agent = f"Mozilla/5.0 (X11) Chrome/{version}.0.0.0 Safari/537.36"
    return {**known, **words, "fallback": False, "userAgent": agent, "limits": {}, "features": []}


LAPTOP = browser_device(adapter())
PHONE = browser_device(adapter(vendor="qualcomm", architecture="adreno-7xx"))


@dataclass
class Visit:
    """A page that opened an address, and what it was told."""

    page: PageLink
    refusal: str
    farewells: list[tuple[Farewell, str]] = field(default_factory=list)

    def leave(self, loans: Loans, deliberate: bool = True) -> None:
        self.page.end(deliberate)
        loans.notice()


def visit(loans: Loans, device: Device, key: str = "") -> Visit:
    token = loans.address if not key else ""
    admitted = loans.admit(token, key)
    assert admitted is not None
    farewells: list[tuple[Farewell, str]] = []
    page = PageLink(admitted, device, lambda message: None, lambda code, reason: farewells.append((code, reason)))
    return Visit(page, loans.join(page), farewells)


def make(at_most: int | None = None, wait_s: float = 5) -> tuple[Loans, list[str]]:
    said: list[str] = []
    return Loans(lambda token: token, said.append, wait_s, at_most), said


def test_each_address_serves_once_and_each_browser_is_a_device() -> None:
    loans, _ = make()
    used = loans.address
    first = visit(loans, LAPTOP)
    assert loans.admit(used, "") is None and not loans.knows(used) and loans.admit("", "guess") is None
    phone, second = visit(loans, PHONE), visit(loans, LAPTOP)
    assert (first.refusal, phone.refusal, second.refusal) == ("", "", "")
    assert [loan.device for loan in loans.all()] == [LAPTOP, PHONE, replace(LAPTOP, index=1)]
    assert loans.lent_by(phone.page.key) is loans.all()[1]


def test_a_page_takes_the_place_of_one_that_left_if_its_browser_and_gpu_are_the_same() -> None:
    loans, _ = make()
    before = visit(loans, LAPTOP)
    loan = loans.first()
    before.leave(loans)
    assert loan.why == "the page was closed"
    updated = visit(loans, browser_device(adapter(version=157)))
    assert loan.page.gone and len(loans.all()) == 2, "another version is another driver: not the same session"
    visit(loans, PHONE)
    after = visit(loans, LAPTOP)
    assert loan.page is after.page and not loan.why and len(loans.all()) == 3
    assert loans.all()[1].page is updated.page


def test_a_page_that_slept_comes_back_by_its_key_to_its_place_or_to_a_new_one() -> None:
    loans, _ = make()
    page = visit(loans, LAPTOP)
    loan = loans.first()
    page.leave(loans, deliberate=False)
    assert loan.why == "the page does not answer"
    again = visit(loans, LAPTOP, key=page.page.key)
    assert loan.page is again.page
    # Its connection broke and it came back before anybody noticed.
    twice = visit(loans, LAPTOP, key=page.page.key)
    assert loan.page is twice.page and again.page.gone and not twice.page.gone
    # It slept, and another page took its place.
    twice.leave(loans, deliberate=False)
    other = visit(loans, LAPTOP)
    woken = visit(loans, LAPTOP, key=page.page.key)
    assert [loan.page for loan in loans.all()] == [other.page, woken.page]


def test_one_browser_alone_sends_others_away() -> None:
    loans, said = make(at_most=1)
    visit(loans, LAPTOP)
    stranger = visit(loans, PHONE)
    assert "browser:chrome-google-swiftshader is being tuned, and this is browser:chrome-qualcomm" in stranger.refusal
    assert len(loans.all()) == 1 and "it was sent away" in said[0]
    newer = visit(loans, LAPTOP)
    assert not newer.refusal and loans.first().page is newer.page and len(loans.all()) == 1


def test_waiting_ends_with_a_page_with_the_time_or_with_the_end() -> None:
    loans, said = make(wait_s=0.2)
    with pytest.raises(DeviceError, match=r"^no browser joined within 0\.2 s"):
        loans.first()
    assert said[0].startswith(f"open {loans.address} ")
    page = visit(loans, LAPTOP)
    loan = loans.first()
    assert loan.wait_for_page() is page.page
    page.leave(loans)
    with pytest.raises(DeviceError, match="the page was closed, and no browser joined"):
        loan.wait_for_page()
    loans.wait_s = 60
    loans.until = time.monotonic()
    with pytest.raises(DeviceError, match="no browser joined"):
        loan.wait_for_page()
    loans.until = float("inf")
    joining = threading.Timer(0.1, lambda: visit(loans, LAPTOP))
    joining.start()
    assert not loan.wait_for_page().gone
    loan.page.end(deliberate=True)
    threading.Timer(0.1, loans.end_all).start()
    with pytest.raises(DeviceError, match="served no more"):
        loan.wait_for_page()


def test_an_ended_loan_thanks_its_page_and_is_lent_to_no_more() -> None:
    loans, _ = make()
    page = visit(loans, LAPTOP)
    loans.first().end()
    assert page.farewells == [(Farewell.OVER, "")]
    assert loans.admit("", page.page.key) is None
    visit(loans, LAPTOP)
    assert [loan.over for loan in loans.all()] == [True, False]


def test_browsers_are_visitors_whose_absence_has_a_reason() -> None:
    loans, _ = make(wait_s=60)
    browsers = Browsers(loans, None)
    assert browsers.expected() == "browser" and "browser whose GPU is to be tuned" in browsers.invitation()
    page = visit(loans, LAPTOP)
    assert browsers.expected() == "" and browsers.there() == [LAPTOP] and "another browser" in browsers.invitation()
    page.leave(loans)
    assert browsers.there() == [] and browsers.absence(LAPTOP) == "the page was closed"
    assert browsers.invitation() == f"open {loans.address} to go on with {LAPTOP.key}"
    browsers.release(LAPTOP)
    assert loans.all()[0].over and "another browser" in browsers.invitation()
    late, _ = make(wait_s=60)
    with pytest.raises(DeviceError, match="no browser joined"):
        Browsers(late, 0).expected()


def test_an_address_that_was_used_in_vain_is_told_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgtune.devices.browser.page_registry._JOIN_S", 0.0)
    loans, usually = make(wait_s=20)
    said: list[str] = []
    first = loans.address

    def stumble() -> None:
        assert loans.admit(first, "") is not None  # and says nothing of its GPU
        while len(said) < 2:
            time.sleep(0.01)
        visit(loans, LAPTOP)

    opening = threading.Timer(0.1, stumble)
    opening.start()
    assert loans.first(said.append).device == LAPTOP
    opening.join()
    assert len(said) == 2 and first in said[0] and first not in said[1] and not usually
