"""The page registry: tokens, keys, pages that leave, come back, or are somebody else's. No browser."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from wgtune.devices.browser.identity import browser_device
from wgtune.devices.browser.page_link import CloseCode, PageLink
from wgtune.devices.browser.page_registry import PageRegistry
from wgtune.devices.device import Device
from wgtune.support.errors import DeviceError
from wgtune.tuner.fleet.browser_source import BrowserSource


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
    closings: list[tuple[CloseCode, str]] = field(default_factory=list)

    def leave(self, registry: PageRegistry, deliberate: bool = True) -> None:
        self.page.end(deliberate)
        registry.page_disconnected()


def visit(registry: PageRegistry, device: Device, key: str = "") -> Visit:
    token = registry.address if not key else ""
    admitted = registry.admit(token, key)
    assert admitted is not None
    closings: list[tuple[CloseCode, str]] = []
    page = PageLink(admitted, device, lambda message: None, lambda code, reason: closings.append((code, reason)))
    return Visit(page, registry.join(page), closings)


def make(at_most: int | None = None, wait_s: float = 5) -> tuple[PageRegistry, list[str]]:
    said: list[str] = []
    return PageRegistry(lambda token: token, said.append, wait_s, at_most), said


def test_each_address_serves_once_and_each_browser_is_a_device() -> None:
    registry, _ = make()
    used = registry.address
    first = visit(registry, LAPTOP)
    assert registry.admit(used, "") is None and not registry.accepts(used) and registry.admit("", "guess") is None
    phone, second = visit(registry, PHONE), visit(registry, LAPTOP)
    assert (first.refusal, phone.refusal, second.refusal) == ("", "", "")
    assert [browser.device for browser in registry.browsers()] == [LAPTOP, PHONE, replace(LAPTOP, index=1)]
    assert registry.find(phone.page.key) is registry.browsers()[1]


def test_a_page_takes_the_place_of_one_that_left_if_its_browser_and_gpu_are_the_same() -> None:
    registry, _ = make()
    before = visit(registry, LAPTOP)
    browser = registry.wait_for_first()
    before.leave(registry)
    assert browser.absence_reason == "the page was closed"
    updated = visit(registry, browser_device(adapter(version=157)))
    assert browser.page.gone and len(registry.browsers()) == 2, (
        "another version is another driver: not the same session"
    )
    visit(registry, PHONE)
    after = visit(registry, LAPTOP)
    assert browser.page is after.page and not browser.absence_reason and len(registry.browsers()) == 3
    assert registry.browsers()[1].page is updated.page


def test_a_page_that_slept_comes_back_by_its_key_to_its_place_or_to_a_new_one() -> None:
    registry, _ = make()
    page = visit(registry, LAPTOP)
    browser = registry.wait_for_first()
    page.leave(registry, deliberate=False)
    assert browser.absence_reason == "the page does not answer"
    again = visit(registry, LAPTOP, key=page.page.key)
    assert browser.page is again.page
    # Its connection broke and it came back before anybody noticed.
    twice = visit(registry, LAPTOP, key=page.page.key)
    assert browser.page is twice.page and again.page.gone and not twice.page.gone
    # It slept, and another page took its place.
    twice.leave(registry, deliberate=False)
    other = visit(registry, LAPTOP)
    woken = visit(registry, LAPTOP, key=page.page.key)
    assert [browser.page for browser in registry.browsers()] == [other.page, woken.page]


def test_one_browser_alone_sends_others_away() -> None:
    registry, said = make(at_most=1)
    visit(registry, LAPTOP)
    stranger = visit(registry, PHONE)
    assert "browser:chrome-google-swiftshader is being tuned, and this is browser:chrome-qualcomm" in stranger.refusal
    assert len(registry.browsers()) == 1 and "it was sent away" in said[0]
    newer = visit(registry, LAPTOP)
    assert not newer.refusal and registry.wait_for_first().page is newer.page and len(registry.browsers()) == 1


def test_waiting_ends_with_a_page_with_the_time_or_with_the_end() -> None:
    registry, said = make(wait_s=0.2)
    with pytest.raises(DeviceError, match=r"^no browser joined within 0\.2 s"):
        registry.wait_for_first()
    assert said[0].startswith(f"open {registry.address} ")
    page = visit(registry, LAPTOP)
    browser = registry.wait_for_first()
    assert browser.wait_for_page() is page.page
    page.leave(registry)
    with pytest.raises(DeviceError, match="the page was closed, and no browser joined"):
        browser.wait_for_page()
    registry.wait_s = 60
    registry.until = time.monotonic()
    with pytest.raises(DeviceError, match="no browser joined"):
        browser.wait_for_page()
    registry.until = float("inf")
    joining = threading.Timer(0.1, lambda: visit(registry, LAPTOP))
    joining.start()
    assert not browser.wait_for_page().gone
    browser.page.end(deliberate=True)
    threading.Timer(0.1, registry.close).start()
    with pytest.raises(DeviceError, match="served no more"):
        browser.wait_for_page()


def test_an_ended_loan_thanks_its_page_and_is_lent_to_no_more() -> None:
    registry, _ = make()
    page = visit(registry, LAPTOP)
    registry.wait_for_first().release()
    assert page.closings == [(CloseCode.OVER, "")]
    assert registry.admit("", page.page.key) is None
    visit(registry, LAPTOP)
    assert [browser.released for browser in registry.browsers()] == [True, False]


def test_browsers_are_a_device_source_that_says_why_a_device_is_unavailable() -> None:
    registry, _ = make(wait_s=60)
    source = BrowserSource(registry, None)
    assert source.awaited_device() == "browser" and "browser whose GPU is to be tuned" in source.join_instructions()
    page = visit(registry, LAPTOP)
    assert (
        source.awaited_device() == ""
        and source.available_devices() == [LAPTOP]
        and "another browser" in source.join_instructions()
    )
    page.leave(registry)
    assert source.available_devices() == [] and source.unavailable_reason(LAPTOP) == "the page was closed"
    assert source.join_instructions() == f"open {registry.address} to go on with {LAPTOP.key}"
    source.release(LAPTOP)
    assert registry.browsers()[0].released and "another browser" in source.join_instructions()
    late, _ = make(wait_s=60)
    with pytest.raises(DeviceError, match="no browser joined"):
        BrowserSource(late, 0).awaited_device()


def test_an_address_that_was_used_in_vain_is_told_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgtune.devices.browser.page_registry._JOIN_S", 0.0)
    registry, usually = make(wait_s=20)
    said: list[str] = []
    first = registry.address

    def stumble() -> None:
        assert registry.admit(first, "") is not None  # and says nothing of its GPU
        while len(said) < 2:
            time.sleep(0.01)
        visit(registry, LAPTOP)

    opening = threading.Timer(0.1, stumble)
    opening.start()
    assert registry.wait_for_first(said.append).device == LAPTOP
    opening.join()
    assert len(said) == 2 and first in said[0] and first not in said[1] and not usually
