"""Several chips at once, of whose drivers one may refuse, crash or hang."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import asdict

import pytest
from synthetic_store import FACTS

from wgtune.devices.offline import compiler
from wgtune.devices.offline.chips import CHIPS, Chip, FoundChip
from wgtune.devices.offline.compiler import OfflineCompiler, shader_digest
from wgtune.devices.offline.translation import TranslationError
from wgtune.devices.program import Shader
from wgtune.support.child_process import ChildDied, ChildTimeout
from wgtune.support.errors import DeviceError
from wgtune.support.hashing import digest_of


def shader(source: str) -> Shader:
    return Shader("main_kernel", source, (1, 1, 1))


class FakeTranslators:
    version = "Chromium 1"

    def translate(self, shaders):
        for one in shaders:
            yield TranslationError("line 1: no") if "refused" in one.source else one.source.encode()

    def close(self) -> None:
        pass


class FakeChild:
    """Answers with the number of bytes as registers; dies of "crash NAME", hangs at "hang NAME"."""

    def __init__(self, chip: Chip) -> None:
        self.name = chip.name
        self.alive = True
        self.waiting: list[str] = []

    def send(self, message: dict) -> None:
        if not self.alive:
            raise ChildDied("ended with exit status 1", "")
        self.waiting.append(base64.b64decode(message["spirv"]).decode())

    def receive(self, deadline: float) -> dict:
        text = self.waiting.pop(0)
        if text == f"crash {self.name}":
            self.alive = False
            raise ChildDied("was ended by SIGSEGV (signal 11)", "")
        if text == f"hang {self.name}":
            raise ChildTimeout
        if text == f"error {self.name}":
            return {"error": "vkCreateComputePipelines failed with VkResult -3"}
        if text == f"fatal {self.name}":
            self.alive = False
            return {"facts": asdict(FACTS)}
        return {"facts": {**asdict(FACTS), "vgprs": len(text)}}

    def kill(self) -> None:
        self.alive = False


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[FakeChild]:
    children: list[FakeChild] = []

    def start(chip: Chip) -> tuple[FakeChild, FoundChip]:
        children.append(FakeChild(chip))
        return children[-1], FoundChip(chip, chip.name, "Mesa 1")

    monkeypatch.setattr(compiler, "Translators", FakeTranslators)
    monkeypatch.setattr(compiler, "start_chip", start)
    monkeypatch.setattr(compiler, "start_chips", lambda chips: [start(chip) for chip in chips])
    return children


def compiled(*sources: str, chips=CHIPS[2:]) -> list[list[int | str]]:
    with OfflineCompiler(chips) as offline:
        assert offline.compiler == "Chromium 1, Mesa 1 (RADV)"
        return [
            [one.facts.vgprs if one.facts else one.error for one in outcomes]
            for outcomes in offline.compile([(shader(source), chips) for source in sources])
        ]


def test_every_shader_is_answered_for_every_chip_in_order(started: list[FakeChild]) -> None:
    assert compiled("a", "bb", "ccc") == [[1, 1], [2, 2], [3, 3]]
    assert [child.alive for child in started] == [False, False]


def test_a_shader_that_the_browser_refuses_is_an_error_on_every_chip(started: list[FakeChild]) -> None:
    error = "WGSL does not become SPIR-V: line 1: no"
    assert compiled("a", "refused", "bb") == [[1, 1], [error, error], [2, 2]]
    assert compiled("refused") == [[error, error]]


@pytest.mark.parametrize(
    ("word", "words"), [("crash", "the driver was ended by SIGSEGV"), ("hang", "the driver no answer in time")]
)
def test_a_crash_or_a_hang_costs_one_shader_on_one_chip(started: list[FakeChild], word: str, words: str) -> None:
    first, (lost, kept), last = compiled("a", f"{word} navi21", "bb")
    assert (first, last, kept) == ([1, 1], [2, 2], len(f"{word} navi21"))
    assert str(lost).startswith(f"navi21: {words}")
    assert [child.name for child in started] == ["navi21", "gfx1100", "navi21"]
    assert not any(child.alive for child in started)


def test_a_driver_that_dies_after_its_answer_is_started_again(started: list[FakeChild]) -> None:
    assert compiled("fatal navi21", "bb")[1] == [2, 2]


def test_a_refusal_of_the_driver_is_told(started: list[FakeChild]) -> None:
    assert compiled("error gfx1100")[0][1] == "gfx1100: vkCreateComputePipelines failed with VkResult -3"


def test_only_the_chips_asked_for_compile(started: list[FakeChild]) -> None:
    navi21, gfx1100 = CHIPS[2:]
    with OfflineCompiler([navi21, gfx1100]) as offline:
        found = list(offline.compile([(shader("a"), [gfx1100]), (shader("b"), [navi21, gfx1100])]))
    assert [[one.chip.name for one in outcomes] for outcomes in found] == [["gfx1100"], ["navi21", "gfx1100"]]


def test_a_chip_that_does_not_start_ends_the_others(started: list[FakeChild], monkeypatch: pytest.MonkeyPatch) -> None:
    usual: Callable = compiler.start_chips

    def some(chips):
        yield usual(chips[:1])[0]
        raise DeviceError("Mesa's RADV does not compile for gfx1100 here")

    monkeypatch.setattr(compiler, "start_chips", some)
    with pytest.raises(DeviceError, match="gfx1100"):
        OfflineCompiler(CHIPS[2:])
    assert [child.alive for child in started] == [False]


def test_facts_are_kept_under_entry_and_text() -> None:
    assert shader_digest(shader("a")) == digest_of("main_kernel\na")
    assert shader_digest(shader("a")) != shader_digest(Shader("other", "a", (1, 1, 1)))
    assert shader_digest(shader("a")) == shader_digest(Shader("main_kernel", "a", (64, 1, 1)))
