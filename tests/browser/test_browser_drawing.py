"""The runtime in Chromium draws what NumPy says for the synthetic bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import Serve
from drawing import difference, generate
from playwright.sync_api import Page
from synthetic_bundle import SyntheticBundle, make_bundle


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ("a lighthouse", {}),
        ("", {"seed": 7}),
        ("fog", {"negative": "sun", "scheduler": "mixed", "steps": 3, "guidance": 3.0, "seed": 2**53 - 1}),
        ("A Very Long Prompt, Cut Off", {"scheduler": "mixed", "steps": 4, "guidance": 1.0, "seed": 2**32 + 5}),
        ("Ünïcødé 🐎", {"negative": "日本語", "steps": 20, "guidance": 0.5, "seed": 3}),
    ],
)
def test_pictures(page: Page, bundle: SyntheticBundle, serve: Serve, prompt: str, options: dict) -> None:
    page.goto(serve(bundle.folder))
    named = {"negativePrompt" if key == "negative" else key: value for key, value in options.items()}
    got = generate(page, prompt, **{"steps": 2, **named})
    assert difference(got, bundle.expected(prompt, **options)) <= 1


def test_one_pipeline_draws_many(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    """Nothing of one picture is left in the buffers for the next."""
    page.goto(serve(bundle.folder))
    first = generate(page, "a", steps=20, seed=1)
    second = generate(page, "b", scheduler="mixed", steps=3, seed=2)
    assert difference(second, bundle.expected("b", scheduler="mixed", steps=3, seed=2)) <= 1
    assert difference(generate(page, "a", steps=20, seed=1), first) == 0


@pytest.mark.parametrize(("batch", "guidance"), [(3, True), (1, False), (2, False)])
def test_batch_and_guidance(page: Page, serve: Serve, tmp_path: Path, batch: int, guidance: bool) -> None:
    bundle = make_bundle(tmp_path, batch=batch, guidance=guidance)
    page.goto(serve(tmp_path))
    got = generate(page, "boats", steps=4, seed=9)
    assert got.shape[0] == batch
    assert difference(got, bundle.expected("boats", steps=4, seed=9)) <= 1


def test_runtime_without_the_page(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    """`assets/wgtune.js` is the runtime for other pages, whatever page imports it."""
    url = serve(bundle.folder)
    page.goto(url)
    sizes = page.evaluate(
        """async (url) => {
          const { Pipeline, randn, WgtuneError } = await import(`${url}assets/wgtune.js`);
          const pipeline = await Pipeline.load(url);
          const { pictures } = await pipeline.generate({ prompt: "x", steps: 2 });
          const wrong = await pipeline.generate({ prompt: "x", steps: 5 }).catch((error) => error);
          pipeline.destroy();
          return [pictures[0].data.length, randn(0, 4).length, wrong instanceof WgtuneError, wrong.message, wrong.hint];
        }""",
        url,
    )
    assert sizes == [64 * 64 * 4, 4, True, "This bundle has no table for 5 steps of “plain”.", "It has 2, 4, 20."]


def test_bundle_elsewhere(page: Page, bundle: SyntheticBundle, serve: Serve, tmp_path: Path) -> None:
    """`?bundle=` names another folder than the page's own."""
    outer = make_bundle(tmp_path)
    inner = make_bundle(tmp_path / "sub", batch=2)
    page.goto(serve(outer.folder) + "?bundle=sub")
    assert difference(generate(page, "y", steps=2), inner.expected("y")) <= 1


def test_two_pictures_at_once_are_refused(page: Page, bundle: SyntheticBundle, serve: Serve) -> None:
    page.goto(serve(bundle.folder))
    messages = page.evaluate(
        """async () => {
          const both = [1, 2].map((seed) => window.wgtune.generate({ prompt: "z", steps: 2, seed }));
          return (await Promise.allSettled(both)).map(({ status, reason }) => [status, reason?.kind]);
        }"""
    )
    assert messages == [["fulfilled", None], ["rejected", "usage"]]
