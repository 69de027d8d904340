"""Files are downloaded once, kept by content, and checked again on each visit."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from chromium import Serve
from drawing import add_script, difference, generate
from playwright.sync_api import BrowserContext, Page, expect
from synthetic_bundle import SyntheticBundle, make_bundle

PAGE = re.compile(r"^/(|index\.html|assets/.*|manifest\.json)$")


def visit(context: BrowserContext, url: str) -> tuple[Page, list[str]]:
    """Open the page and wait until all is there; the paths of the bundle's files that it fetched."""
    page = context.new_page()
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(urlsplit(request.url).path))
    page.goto(url)
    page.evaluate("async () => { await (await window.wgtune.ready).complete; }")
    return page, [path for path in fetched if not PAGE.match(path)]


def stored(page: Page) -> int:
    return page.evaluate(
        """async () => {
          const caches_ = await Promise.all((await caches.keys()).map((name) => caches.open(name)));
          return (await Promise.all(caches_.map((cache) => cache.keys()))).flat().length;
        }"""
    )


def test_second_visit_downloads_nothing(context: BrowserContext, bundle: SyntheticBundle, serve: Serve) -> None:
    url = serve(bundle.folder)
    page, fetched = visit(context, url)
    assert len(fetched) == 14
    page.close()
    page, fetched = visit(context, url)
    assert fetched == []
    assert difference(generate(page, "kept", steps=2), bundle.expected("kept")) <= 1


def test_update_fetches_what_changed_and_forgets_the_old(context: BrowserContext, serve: Serve, tmp_path: Path) -> None:
    make_bundle(tmp_path)
    url = serve(tmp_path)
    page, _ = visit(context, url)
    before = stored(page)
    page.close()
    make_bundle(tmp_path, unet_repeats=2)
    page, fetched = visit(context, url)
    assert fetched == ["/plan.json"]
    assert stored(page) == before


def test_damaged_store_heals(context: BrowserContext, bundle: SyntheticBundle, serve: Serve) -> None:
    url = serve(bundle.folder)
    page, _ = visit(context, url)
    page.evaluate(
        """async () => {
          const cache = await caches.open((await caches.keys())[0]);
          const [key] = await cache.keys();
          const data = new Uint8Array(await (await cache.match(key)).arrayBuffer());
          data[0] ^= 1;
          await cache.put(key, new Response(data));
        }"""
    )
    page.close()
    page, fetched = visit(context, url)
    assert len(fetched) == 1
    assert difference(generate(page, "healed", steps=2), bundle.expected("healed")) <= 1


def test_without_storage(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    add_script(page, "CacheStorage.prototype.open = async () => { throw new DOMException('no', 'SecurityError'); }")
    page.goto(serve(bundle.folder))
    assert difference(generate(page, "poor", steps=2), bundle.expected("poor")) <= 1


def test_asks_for_persistent_storage_when_something_is_to_be_kept(
    context: BrowserContext, bundle: SyntheticBundle, serve: Serve
) -> None:
    context.add_init_script(
        "globalThis.asked = 0; StorageManager.prototype.persist = async () => { asked++; return true; }"
    )
    url = serve(bundle.folder)
    page, _ = visit(context, url)
    assert page.evaluate("() => globalThis.asked") == 1
    page.close()
    page, _ = visit(context, url)
    assert page.evaluate("() => globalThis.asked") == 0


def test_full_storage(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    add_script(page, "Cache.prototype.put = async () => { throw new DOMException('full', 'QuotaExceededError'); }")
    page.goto(serve(bundle.folder))
    assert difference(generate(page, "full", steps=2), bundle.expected("full")) <= 1
    expect(page.locator("#storage-line")).to_have_text(
        re.compile(r"The browser has no room to keep the model: the next visit downloads \d+ kB again\.")
    )


def test_asks_before_a_large_download(page: Page, serve: Serve, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(urlsplit(request.url).path))
    # The page is told of a model of 4.1 GB, and of small files again once it has asked.
    add_script(
        page,
        """const json = Response.prototype.json;
        Response.prototype.json = async function () {
          const value = await json.call(this);
          const pieces = Array(Math.ceil(4.1e9 / 2 ** 22)).fill("");
          if (value.files) value.files["weights/far.bin"] = { bytes: 4.1e9, sha256: "", pieces };
          return value;
        };""",
    )
    page.goto(serve(tmp_path))
    expect(page.get_by_text("The model is a download of 4.1 GB.")).to_be_visible()
    # Beside the page itself there is the script that `add_script` puts before the worker's.
    assert all(PAGE.match(path) or path.startswith("http") for path in fetched)
    page.get_by_role("button", name="Download the model").click()
    assert difference(generate(page, "yes", steps=2), bundle.expected("yes")) <= 1
