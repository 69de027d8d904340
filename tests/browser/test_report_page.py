"""The report's page in Chromium: it sorts by click and by key, and fits a phone and both colour schemes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from playwright.sync_api import Browser, Page
from report_database import fill
from synthetic_store import CAPTURE, LLVMPIPE, MATMUL, add_demo, baseline, measure, ok, session

from wgtune.database.store import Store
from wgtune.reports.html.page import write_page
from wgtune.reports.html.search_page import write_search_page
from wgtune.reports.search import search_report
from wgtune.support.enums import Runtime

SPEED_UP, KERNEL = 6, 0


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("report")
    with Store.open(str(folder / "x.db")) as store:
        fill(store)
        write_page(folder / "page.html", store, CAPTURE, LLVMPIPE.key, 20)
    return (folder / "page.html").as_uri()


def opened(browser: Browser, url: str, **options) -> tuple[Page, list[str]]:
    page = browser.new_context(**options).new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url != url else None)
    page.goto(url)
    return page, said


def column(page: Page, index: int) -> list[str]:
    return page.eval_on_selector_all("tbody tr", f"rows => rows.map(row => row.cells[{index}].textContent)")


def test_headings_sort(browser, report):
    page, said = opened(browser, report)
    heading = page.locator("th button").nth(SPEED_UP)
    heading.click()
    assert column(page, SPEED_UP) == ["4.00 ×", "1.00 ×", "1.00 ×", "—", "—"]
    assert page.locator("th").nth(SPEED_UP).get_attribute("aria-sort") == "descending"
    heading.press("Enter")
    assert column(page, SPEED_UP) == ["1.00 ×", "1.00 ×", "4.00 ×", "—", "—"]
    page.locator("th button").nth(KERNEL).click()
    names = column(page, KERNEL)
    assert names == sorted(names)
    assert page.locator("th[aria-sort]").count() == 1
    assert said == []
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_fits(browser, report, scheme, width):
    page, said = opened(browser, report, color_scheme=scheme, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colours = page.evaluate("(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))")
    text, back = (sum(map(int, colour[4:-1].split(","))) for colour in colours)
    assert (text < back) == (scheme == "light") and abs(text - back) > 400
    assert said == []
    page.context.close()


@pytest.fixture(scope="module")
def search_page(tmp_path_factory) -> str:
    """Searches of 256 trials, cold and warm."""
    folder = tmp_path_factory.mktemp("search")
    stores = []
    for name, trials in (("cold", 256), ("warm", 128)):
        store = Store.memory()
        add_demo(store)
        budget = {"trials": trials, "warm": True} if name == "warm" else {"trials": trials}
        made = store.begin_session(replace(session(), budget=budget))
        baseline(store, made, MATMUL, ok(8e-3))
        for number in range(trials):
            measure(store, made, MATMUL, ok(4e-3 / (1 + number)), f"{name} {number}")
        stores.append(store)
    cold, warm = stores
    write_search_page(
        folder / "page.html", search_report(warm, "demo", {MATMUL.id: MATMUL.name}, LLVMPIPE, Runtime.WGPU, cold)
    )
    for store in stores:
        store.close()
    return (folder / "page.html").as_uri()


def test_the_tables_of_searches_of_hundreds_of_trials_fit_a_small_window(browser, search_page):
    page, said = opened(browser, search_page, viewport={"width": 1100, "height": 800})
    assert "256" in column_heads(page), "the number of all trials is there"
    wide = page.eval_on_selector_all(".scroll", "all => all.filter(one => one.scrollWidth > one.clientWidth).length")
    assert wide == 0 and said == []
    page.context.close()


def column_heads(page: Page) -> list[str]:
    return page.eval_on_selector_all("thead th", "heads => heads.map(head => head.textContent)")
