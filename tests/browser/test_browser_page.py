"""The page: what a person types, presses and sees."""

from __future__ import annotations

import io
import re
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from chromium import Serve
from drawing import add_script, difference, shown, slow_down, wait_until_ready, worker
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from synthetic_bundle import SyntheticBundle, make_bundle


@pytest.fixture
def ready(page: Page, bundle: SyntheticBundle, serve: Serve) -> Page:
    page.goto(serve(bundle.folder))
    wait_until_ready(page)
    return page


def test_draws_what_the_form_says(ready: Page, bundle: SyntheticBundle) -> None:
    ready.get_by_label("Prompt", exact=True).fill("a red boat")
    ready.get_by_label("Negative prompt").fill("rain")
    ready.get_by_label("Sampler").select_option("mixed")
    ready.get_by_label("Steps").select_option("3")
    ready.get_by_label("Guidance").fill("4.5")
    ready.get_by_label("Seed", exact=True).fill("77")
    ready.get_by_role("button", name="Generate").click()
    expect(ready.get_by_text(re.compile(r"Drawn in [\d.]+ m?s, [\d.]+ m?s per step"))).to_be_visible()
    expect(ready.get_by_role("img", name="a red boat")).to_be_visible()
    wanted = bundle.expected("a red boat", "rain", scheduler="mixed", steps=3, guidance=4.5, seed=77)
    assert difference(shown(ready), wanted) <= 1


def test_link_reproduces_the_picture(ready: Page, bundle: SyntheticBundle) -> None:
    ready.get_by_label("Prompt", exact=True).fill("tea & cakes #1 ☕")
    ready.get_by_label("Seed", exact=True).fill("5")
    ready.get_by_label("Steps").select_option("4")
    ready.get_by_label("Guidance").fill("7.25")
    ready.get_by_role("button", name="Generate").click()
    expect(ready.get_by_role("img")).to_be_visible()
    fragment = urlsplit(ready.url).fragment
    other = ready.context.new_page()
    other.goto(ready.url.split("#")[0] + "#" + fragment)
    wait_until_ready(other)
    assert other.get_by_label("Prompt", exact=True).input_value() == "tea & cakes #1 ☕"
    other.get_by_role("button", name="Generate").click()
    expect(other.get_by_role("img")).to_be_visible()
    assert difference(shown(other), bundle.expected("tea & cakes #1 ☕", steps=4, guidance=7.25, seed=5)) <= 1
    assert difference(shown(other), shown(ready)) == 0


def test_link_with_nonsense_leaves_the_defaults(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    page.goto(serve(bundle.folder) + "#steps=99&scheduler=none&seed=-1&guidance=abc&prompt=ok")
    wait_until_ready(page)
    assert page.get_by_label("Prompt", exact=True).input_value() == "ok"
    assert page.get_by_label("Sampler").input_value() == "plain"
    assert page.get_by_label("Steps").input_value() == "20"
    assert page.get_by_label("Guidance").input_value() == "7.5"
    assert int(page.get_by_label("Seed", exact=True).input_value()) >= 0


def test_only_the_steps_that_the_scheduler_has(ready: Page) -> None:
    def steps() -> list[str]:
        return ready.get_by_label("Steps").locator("option").all_text_contents()

    assert steps() == ["2", "4", "20"]
    assert ready.get_by_label("Steps").input_value() == "20"
    ready.get_by_label("Sampler").select_option("mixed")
    assert steps() == ["3", "4"]
    assert ready.get_by_label("Steps").input_value() == "4"
    ready.get_by_label("Sampler").select_option("plain")
    # What was asked for comes back with the scheduler that can give it.
    assert ready.get_by_label("Steps").input_value() == "20"


def test_keyboard_alone(ready: Page, bundle: SyntheticBundle) -> None:
    ready.get_by_label("Seed", exact=True).fill("4")
    ready.get_by_label("Steps").select_option("2")
    ready.get_by_label("Prompt", exact=True).focus()
    ready.keyboard.type("one")
    ready.keyboard.press("Shift+Enter")
    ready.keyboard.type("two")
    ready.keyboard.press("Enter")
    expect(ready.get_by_role("img")).to_be_visible()
    assert difference(shown(ready), bundle.expected("one\ntwo", steps=2, seed=4)) <= 1


def test_every_control_has_a_label_and_is_reached_by_tab(ready: Page) -> None:
    ready.get_by_label("Prompt", exact=True).focus()
    reached = []
    for _ in range(8):
        reached.append(ready.evaluate("() => document.activeElement.id"))
        ready.keyboard.press("Tab")
    assert reached == ["prompt", "negative", "scheduler", "steps", "guidance", "seed", "dice", "generate"]
    unlabelled = ready.evaluate(
        """() => Array.from(document.querySelectorAll("input, select, textarea, button"))
          .filter((e) => !e.labels?.length && !e.textContent.trim() && !e.getAttribute("aria-label"))
          .map((e) => e.id)"""
    )
    assert unlabelled == []


def test_dice_gives_another_seed(ready: Page) -> None:
    seeds = set()
    for _ in range(4):
        ready.get_by_role("button", name="Random seed").click()
        seeds.add(ready.get_by_label("Seed", exact=True).input_value())
    assert len(seeds) == 4


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_cancel_and_draw_again(page: Page, bundle: SyntheticBundle, serve: Serve, way: str) -> None:
    slow_down(page)
    page.goto(serve(bundle.folder))
    wait_until_ready(page)
    page.get_by_label("Steps").select_option("20")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_text(re.compile(r"Step \d+ of 20"))).to_be_visible()
    if way == "button":
        page.get_by_role("button", name="Cancel").click()
    else:
        page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Generate")).to_be_visible(timeout=5000)
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.get_by_role("alert")).to_be_hidden()
    page.get_by_label("Prompt", exact=True).fill("after")
    page.get_by_label("Seed", exact=True).fill("1")
    page.get_by_label("Steps").select_option("2")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("img")).to_be_visible()
    assert difference(shown(page), bundle.expected("after", steps=2, seed=1)) <= 1


def test_progress_while_drawing(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    slow_down(page)
    page.goto(serve(bundle.folder))
    wait_until_ready(page)
    page.get_by_label("Steps").select_option("20")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_text(re.compile(r"[\d.]+ m?s per step · \d+ s left"))).to_be_visible()
    early = page.locator("#bar").evaluate("(bar) => bar.value")
    expect(page.get_by_text(re.compile(r"Step ([4-9]|1\d) of 20"))).to_be_visible()
    assert early < page.locator("#bar").evaluate("(bar) => bar.value") < 1
    # The page answers while the GPU works.
    page.get_by_label("Prompt", exact=True).fill("typed meanwhile")
    page.get_by_role("button", name="Cancel").click()


def test_no_readback_between_steps(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    add_script(
        page,
        """globalThis.maps = 0;
        const mapAsync = GPUBuffer.prototype.mapAsync;
        GPUBuffer.prototype.mapAsync = function (...args) { maps++; return mapAsync.apply(this, args); };""",
    )
    page.goto(serve(bundle.folder))
    page.evaluate("() => window.wgtune.generate({ prompt: 'x', steps: 20 })")
    assert worker(page).evaluate("() => globalThis.maps") == 1


def test_saves_the_picture_as_png(ready: Page, bundle: SyntheticBundle) -> None:
    ready.get_by_label("Prompt", exact=True).fill("Two Cats, asleep!")
    ready.get_by_label("Seed", exact=True).fill("11")
    ready.get_by_label("Steps").select_option("2")
    ready.get_by_role("button", name="Generate").click()
    with ready.expect_download() as download:
        ready.get_by_role("button", name="Save as PNG").click()
    assert download.value.suggested_filename == "two-cats-asleep-11.png"
    image = Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))
    assert image.format == "PNG"
    wanted = bundle.expected("Two Cats, asleep!", steps=2, seed=11)
    assert difference(np.asarray(image.convert("RGBA"))[None], wanted) <= 1


def test_says_when_the_prompt_is_too_long(ready: Page) -> None:
    ready.get_by_label("Prompt", exact=True).fill("four")
    expect(ready.locator("#tokens")).to_be_empty()
    ready.get_by_label("Prompt", exact=True).fill("x" * 25)
    expect(ready.locator("#tokens")).to_have_text(
        "The model reads the first 10 tokens of the prompt; 15 more are left out."
    )


def test_names_device_and_bundle(ready: Page) -> None:
    expect(ready.locator("#device-line")).to_contain_text("software adapter")
    expect(ready.locator("#device-line")).to_contain_text(
        re.compile(
            r"\d+ kB of its memory and [\d.]+ MB of the page's JavaScript, its worker's not counted, are in use\.$"
        )
    )
    expect(ready.locator("#bundle-line")).to_have_text(
        "Model: synthetic, 64 × 64; tier “default”. 8 kernels: 4 improved by search on vulkan:test (software), "
        "2 where the baseline won, 2 never measured; f32 between them."
    )
    assert ready.title() == "synthetic · wgtune"


def test_without_guidance_no_negative_prompt(page: Page, serve: Serve, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, guidance=False)
    page.goto(serve(tmp_path))
    wait_until_ready(page)
    expect(page.get_by_label("Negative prompt")).to_be_hidden()
    expect(page.get_by_label("Guidance")).to_be_hidden()
    page.get_by_label("Prompt", exact=True).fill("plain")
    page.get_by_label("Seed", exact=True).fill("2")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("img")).to_be_visible()
    assert difference(shown(page), bundle.expected("plain", steps=20, seed=2)) <= 1


@pytest.mark.parametrize("width", [360, 768, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_the_window(browser: Browser, bundle: SyntheticBundle, serve: Serve, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 740}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(serve(bundle.folder) + "#steps=2&prompt=" + "averyveryverylongword" * 20)
    wait_until_ready(page)
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("img")).to_be_visible()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    low = page.evaluate(_LOW_CONTRAST)
    context.close()
    assert low == []


# Texts whose contrast with their ground is below WCAG 2's 4.5 : 1 (level AA).
_LOW_CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const luminance = (colour) => {
    const [r, g, b] = Array.from(rgb(colour).slice(0, 3), (v) => {
      const c = v / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (rgb(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const texts = Array.from(document.querySelectorAll("body *")).filter(
    (e) => e.checkVisibility() && !e.disabled
      && Array.from(e.childNodes).some((n) => n.nodeType === 3 && n.data.trim()));
  return texts.map((e) => {
    const [a, b] = [luminance(getComputedStyle(e).color), luminance(ground(e))];
    return [e.id || e.tagName, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  }).filter(([, contrast]) => contrast < 4.5);
}
"""
