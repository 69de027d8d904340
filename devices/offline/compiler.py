"""From shaders to facts: WGSL is translated in Chromium, and compiled for several chips at once."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ...support.child_process import Child, ChildDied, ChildTimeout
from ...support.errors import DeviceError
from ...support.hashing import digest_of
from ...support.shader_facts import ShaderFacts
from ..program import Shader
from .chips import Chip, FoundChip, find_chips, start_chip, start_chips
from .devtools import chromium_version, find_chromium
from .translation import TranslationError, find_assembler
from .translators import Translators

_COMPILE_TIMEOUT_S = 120.0


def shader_digest(shader: Shader) -> str:
    """Return the SHA-256 that facts of a shader are kept under: of its entry point and its text."""
    return digest_of(f"{shader.entry}\n{shader.source}")


def installed_compiler(chips: Sequence[Chip]) -> str:
    """Return the name of what compiles for ``chips`` here: the browser and the driver, with versions.

    Raises DeviceError, in one sentence, where a part is missing or a chip is unknown to the driver.
    """
    browser = ""
    if takes_wgsl(chips):
        find_assembler()
        browser = chromium_version(find_chromium())
    found, problems = find_chips(chips)
    if problems or not found:
        raise DeviceError(problems[0] if problems else "there is no chip to compile for")
    return _compiler_name(browser, found[0].driver)


def takes_wgsl(chips: Sequence[Chip]) -> bool:
    """Return whether ``chips``, which are one maker's, compile WGSL, rather than TVM's CUDA."""
    return chips[0].driver == "radv"


def _compiler_name(browser: str, driver: str) -> str:
    return f"{browser}, {driver} (RADV)" if browser else driver


@dataclass(frozen=True)
class Outcome:
    """What became of one shader on one chip: its facts, or why there are none."""

    shader: Shader
    chip: Chip
    facts: ShaderFacts | None
    error: str = ""


class OfflineCompiler:
    """A browser's compiler and a GPU driver's, together: ``compiler`` names both with their versions."""

    def __init__(self, chips: Sequence[Chip]) -> None:
        """Start the driver for each of ``chips``, at least one.

        Raises DeviceError, in one sentence, where a part is missing.
        """
        self._translators = Translators() if takes_wgsl(chips) else None
        self._children: dict[Chip, Child] = {}
        self.found: list[FoundChip] = []
        try:
            for child, found in start_chips(chips):
                self._children[found.chip] = child
                self.found.append(found)
        except BaseException:
            self.close()
            raise
        browser = self._translators.version if self._translators else ""
        self.compiler = _compiler_name(browser, self.found[0].driver)

    def __enter__(self) -> OfflineCompiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every browser and every driver's process."""
        if self._translators is not None:
            self._translators.close()
        for child in self._children.values():
            child.kill()

    def compile(self, requests: Sequence[tuple[Shader, Sequence[Chip]]]) -> Iterator[list[Outcome]]:
        """Yield for each shader in order its outcomes on the chips that stand with it.

        While the drivers compile a shader, browsers translate the next ones. Raises DeviceError where the browser does
        not start, or a driver cannot be started again after a crash.
        """
        if self._translators is None:
            for shader, chips in requests:
                threads = math.prod(shader.workgroup)
                self._send({"source": shader.source, "entry": shader.entry, "threads": threads}, chips)
                yield self._collect(shader, chips)
            return
        codes = self._translators.translate([shader for shader, _ in requests])
        for (shader, chips), code in zip(requests, codes, strict=True):
            if isinstance(code, TranslationError):
                yield [Outcome(shader, chip, None, f"WGSL does not become SPIR-V: {code}") for chip in chips]
            else:
                self._send({"spirv": base64.b64encode(code).decode()}, chips)
                yield self._collect(shader, chips)

    def _send(self, message: dict[str, Any], chips: Sequence[Chip]) -> None:
        for chip in chips:
            try:
                self._children[chip].send(message)
            except ChildDied:
                self._restart(chip)
                self._children[chip].send(message)

    def _collect(self, shader: Shader, chips: Sequence[Chip]) -> list[Outcome]:
        outcomes = []
        deadline = time.monotonic() + _COMPILE_TIMEOUT_S
        for chip in chips:
            try:
                answer = self._children[chip].receive(deadline)
            except (ChildDied, ChildTimeout) as failure:
                self._restart(chip)
                outcomes.append(Outcome(shader, chip, None, f"{chip.name}: the driver {failure}"))
                continue
            if "facts" in answer:
                outcomes.append(Outcome(shader, chip, ShaderFacts(**answer["facts"])))
            else:
                outcomes.append(Outcome(shader, chip, None, f"{chip.name}: {answer.get('error', 'no answer')}"))
        return outcomes

    def _restart(self, chip: Chip) -> None:
        self._children[chip].kill()
        self._children[chip], _ = start_chip(chip)
