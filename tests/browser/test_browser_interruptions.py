"""What can go wrong while gigabytes arrive: each load goes on where the last one ended, or heals what is wrong."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from chromium import Serve
from drawing import add_script, difference, generate, wait_until_ready
from faulty_server import Asked, Fault, FaultyServer
from playwright.sync_api import BrowserContext, Page, expect
from synthetic_bundle import SyntheticBundle, make_bundle

from wgtune.web.built_pages import app_dir

SHARD = "weights/shard-002.bin"
PIECE = 4 << 20
"""The page keeps files in pieces of this size."""
SHARD_BYTES = 2 * PIECE + 3_000_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> SyntheticBundle:
    """A bundle with a shard of several pieces, and the page in its folder."""
    folder = tmp_path_factory.mktemp("large")
    bundle = make_bundle(folder, passenger_bytes=SHARD_BYTES, limits={"maxBufferSize": 32 << 20})
    for name in ("index.html", "assets"):
        (folder / name).symlink_to(app_dir() / name)
    return bundle


@pytest.fixture
def server(large: SyntheticBundle) -> Iterator[FaultyServer]:
    with ExitStack() as stack:
        yield stack.enter_context(FaultyServer(large.folder))


def load(page: Page, server: FaultyServer) -> None:
    """Open the page and wait until all of the bundle is there."""
    server.asked.clear()
    page.goto(server.url)
    page.evaluate("async () => { await (await window.wgtune.ready).complete; }")


def fault(page: Page) -> str:
    expect(page.get_by_role("alert")).to_be_visible(timeout=30_000)
    return page.locator("#fault-title").inner_text()


def is_right(page: Page, bundle: SyntheticBundle) -> bool:
    return difference(generate(page, "a boat", steps=2), bundle.expected("a boat")) <= 1


def test_connections_that_are_cut_at_random(page: Page, large: SyntheticBundle, server: FaultyServer) -> None:
    chance = random.Random(5)
    weights = re.compile("weights/")
    server.fault = lambda asked: Fault(cut_after=chance.randrange(3_000_000) if weights.match(asked.path) else None)
    load(page, server)
    starts = server.starts(SHARD)
    assert len(starts) > 3
    assert starts == sorted(starts)
    assert len(set(starts)) > 3
    assert is_right(page, large)


def test_next_visit_goes_on_with_half_a_shard(
    context: BrowserContext, large: SyntheticBundle, server: FaultyServer
) -> None:
    server.fault = lambda asked: (
        Fault(cut_after=10_000_000 if asked.start == 0 else None, status=200 if asked.start == 0 else 503)
        if asked.path == SHARD
        else Fault()
    )
    page = context.new_page()
    page.goto(server.url)
    assert fault(page) == "The network failed"
    page.close()
    server.fault = lambda asked: Fault()
    page = context.new_page()
    load(page, server)
    assert server.starts(SHARD) == [2 * PIECE]
    assert is_right(page, large)
    page.close()
    page = context.new_page()
    load(page, server)
    assert [asked.path for asked in server.asked if asked.path.startswith("weights/")] == []


def test_download_shows_bytes_speed_and_time_left(page: Page, server: FaultyServer) -> None:
    server.fault = lambda asked: Fault(bytes_per_second=3e6 if asked.path == SHARD else None)
    page.goto(server.url)
    expect(page.get_by_text("Downloading the model …")).to_be_visible()
    expect(page.get_by_text(re.compile(r"[\d.]+ MB of 11 MB · [\d.]+ MB/s · \d s left"))).to_be_visible()
    page.evaluate("async () => { await (await window.wgtune.ready).complete; }")
    expect(page.locator("#progress")).to_be_hidden()


def test_host_without_ranges(page: Page, large: SyntheticBundle, server: FaultyServer) -> None:
    cuts = iter([9_000_000])
    server.fault = lambda asked: Fault(ranges=False, cut_after=next(cuts, None) if asked.path == SHARD else None)
    load(page, server)
    assert len(server.starts(SHARD)) == 2
    assert is_right(page, large)


def _html(asked: Asked) -> Fault:
    return Fault(body=b"<!doctype html>" * 10_000) if asked.path.startswith("weights/") else Fault()


def test_web_page_instead_of_shards_heals(
    context: BrowserContext, large: SyntheticBundle, server: FaultyServer
) -> None:
    """Status 200 and HTML, as a host's start page or a hotel's log-in gives for every address."""
    server.fault = _html
    page = context.new_page()
    page.goto(server.url)
    assert fault(page) == "A file is damaged"
    assert "is a web page" in page.locator("#fault-message").inner_text()
    server.fault = lambda asked: Fault()
    page.get_by_role("button", name="Reload").click()
    wait_until_ready(page)
    assert is_right(page, large)


_CHANGE_STORED = """
async (name) => {
  for (const cacheName of await caches.keys()) {
    const cache = await caches.open(cacheName);
    const key = (await cache.keys()).find(({ url }) => url.endsWith(name));
    const data = new Uint8Array(await (await cache.match(key)).arrayBuffer());
    data[4711] ^= 1;
    await cache.put(key, new Response(data));
  }
}
"""


def test_flipped_bit_costs_one_piece(context: BrowserContext, large: SyntheticBundle, server: FaultyServer) -> None:
    page = context.new_page()
    load(page, server)
    second = (large.folder / SHARD).read_bytes()[PIECE : 2 * PIECE]
    page.evaluate(_CHANGE_STORED, hashlib.sha256(second).hexdigest())
    page.close()
    page = context.new_page()
    load(page, server)
    assert [(asked.path, asked.start) for asked in server.asked if asked.path.startswith("weights/")] == [
        (SHARD, PIECE)
    ]
    assert is_right(page, large)


def test_flipped_bit_on_the_host_heals(context: BrowserContext, large: SyntheticBundle, server: FaultyServer) -> None:
    right = (large.folder / SHARD).read_bytes()
    wrong = right[:4711] + bytes([right[4711] ^ 1]) + right[4712:]
    page = context.new_page()
    (large.folder / SHARD).write_bytes(wrong)
    try:
        page.goto(server.url)
        assert fault(page) == "A file is damaged"
    finally:
        (large.folder / SHARD).write_bytes(right)
    page.get_by_role("button", name="Reload").click()
    wait_until_ready(page)
    assert is_right(page, large)


def test_quota_below_the_bundles_size(context: BrowserContext, large: SyntheticBundle, server: FaultyServer) -> None:
    page = context.new_page()
    page.goto(server.url + "manifest.json")
    context.new_cdp_session(page).send(
        "Storage.overrideQuotaForOrigin", {"origin": server.url.rstrip("/"), "quotaSize": 7_000_000}
    )
    load(page, server)
    assert is_right(page, large)
    expect(page.locator("#storage-line")).to_have_text(
        re.compile(r"^The browser has no room to keep all of the model: the next visit downloads 7\.\d MB again\.$")
    )
    load(page, server)
    # What fitted is kept, and only the rest is asked for.
    assert server.starts(SHARD)[0] == PIECE
    assert is_right(page, large)


_128_MIB = """
{
  const own = Object.getOwnPropertyDescriptor(GPUAdapter.prototype, "limits").get;
  Object.defineProperty(GPUAdapter.prototype, "limits", {
    get() {
      const limits = own.call(this);
      return new Proxy(limits, {
        get: (_, name) => (name === "maxStorageBufferBindingSize" ? 128 << 20 : limits[name]),
      });
    },
  });
}
"""


@pytest.mark.parametrize(("mib", "fits"), [(128, True), (256, False)])
def test_adapter_with_bindings_of_128_mib(page: Page, tmp_path: Path, serve: Serve, mib: int, fits: bool) -> None:
    bundle = make_bundle(tmp_path, limits={"maxStorageBufferBindingSize": mib << 20})
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    add_script(page, _128_MIB)
    page.goto(serve(tmp_path))
    if fits:
        assert is_right(page, bundle)
    else:
        assert fault(page) == "The GPU is too small"
        message = page.locator("#fault-message").inner_text()
        assert "maxStorageBufferBindingSize: 256 MiB needed, 128 MiB there" in message
    assert any("/weights/" in url for url in fetched) == fits
