"""Talks to the page's hook, `window.wgtune`."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from playwright.sync_api import Page, Worker

_GENERATE = """
async (options) => {
  const drawn = await window.wgtune.generate(options);
  return {
    seconds: drawn.seconds,
    pictures: drawn.pictures.map(({ width, height, data }) => ({
      width, height, data: btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join("")),
    })),
  };
}
"""

_CANVASES = """
() => Array.from(document.querySelectorAll("canvas"), (canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const text = Array.from(data, (byte) => String.fromCharCode(byte)).join("");
  return { width: canvas.width, height: canvas.height, data: btoa(text) };
})
"""


# A worker's script is imported behind another one: Playwright's own init scripts run in pages only.
_IN_WORKERS = """
{
  const script = %s;
  const Plain = globalThis.Worker;
  if (Plain) globalThis.Worker = class extends Plain {
    constructor(url, options) {
      const code = `${script}\nawait import(${JSON.stringify(new URL(url, location.href).href)});`;
      super(URL.createObjectURL(new Blob([code], { type: "text/javascript" })), options);
    }
  };
}
"""


def add_script(page: Page, script: str) -> None:
    """Run ``script`` in the page and in each of its workers, before their own scripts."""
    page.add_init_script(script + _IN_WORKERS % json.dumps(script))


def worker(page: Page) -> Worker:
    """The worker that loads and draws."""
    (found,) = page.workers
    return found


def slow_down(page: Page) -> None:
    """Let every submission to the GPU seem to take a tenth of a second, on whatever machine this is."""
    add_script(
        page,
        """const done = GPUQueue.prototype.onSubmittedWorkDone;
        GPUQueue.prototype.onSubmittedWorkDone = async function () {
          await done.call(this);
          await new Promise((resolve) => setTimeout(resolve, 100));
        };""",
    )


def wait_until_ready(page: Page) -> None:
    page.wait_for_function("() => !document.getElementById('generate').disabled")


def generate(page: Page, prompt: str, **options: Any) -> np.ndarray:
    """RGBA8 [batch, height, width, 4] that the runtime draws for ``options`` (JavaScript names)."""
    return _pixels(page.evaluate(_GENERATE, {"prompt": prompt, **options})["pictures"])


def shown(page: Page) -> np.ndarray:
    """RGBA8 [batch, height, width, 4] of the canvases on the page."""
    return _pixels(page.evaluate(_CANVASES))


def _pixels(pictures: list[dict[str, Any]]) -> np.ndarray:
    return np.stack(
        [np.frombuffer(base64.b64decode(p["data"]), np.uint8).reshape(p["height"], p["width"], 4) for p in pictures]
    )


def difference(got: np.ndarray, wanted: np.ndarray) -> int:
    """The largest difference of any colour of any pixel, of 255."""
    assert got.shape == wanted.shape
    return int(np.abs(got.astype(int) - wanted.astype(int)).max())
