"""Facts of programs: compiled once, then read; and what is said where nothing can be compiled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from synthetic_store import COMPILER, FACTS, compiled

from wgtune.database.queries.compiled_facts import keep_facts, program_shaders
from wgtune.database.queries.layers import open_layers
from wgtune.database.store import Store
from wgtune.devices.offline.chips import CHIPS, Chip
from wgtune.devices.offline.compiler import Outcome, shader_digest
from wgtune.devices.program import Shader
from wgtune.support.errors import DeviceError
from wgtune.tuner.compiled import facts as facts_module
from wgtune.tuner.compiled.facts import compiled_facts, known_programs
from wgtune.tuner.compiled.kernel_program import KernelProgram

NAVI21, GFX1100 = CHIPS[2:]


def shader(source: str) -> Shader:
    return Shader("main_kernel", source, (1, 1, 1))


def program(name: str, *sources: str) -> KernelProgram:
    shaders = {shader_digest(shader(source)): shader(source) for source in sources}
    return KernelProgram(name, name, {"unet": 2}, 1e9, shaders, f"digest of {name}")


class FakeCompiler:
    """Counts what it compiles; "bad" has no facts, and "stop" ends the run as Ctrl-C does."""

    asked: list[tuple[str, str]]

    def __init__(self, chips: Sequence[Chip]) -> None:
        self.chips = chips

    def __enter__(self) -> FakeCompiler:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def compile(self, requests):
        for one, chips in requests:
            if one.source == "stop":
                raise KeyboardInterrupt
            self.asked += [(one.source, chip.name) for chip in chips]
            yield [
                Outcome(one, chip, None, "it crashed") if one.source == "bad" else Outcome(one, chip, FACTS)
                for chip in chips
            ]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> type[FakeCompiler]:
    FakeCompiler.asked = []
    monkeypatch.setattr(facts_module, "OfflineCompiler", FakeCompiler)
    monkeypatch.setattr(facts_module, "installed_compiler", lambda chips: COMPILER)
    return FakeCompiler


def test_what_is_known_is_not_compiled_again(offline: type[FakeCompiler]) -> None:
    programs = [program("p", "a", "b"), program("q", "b")]
    with Store.memory() as store:
        first = compiled_facts(store, programs, [NAVI21, GFX1100])
        assert offline.asked == [("a", "navi21"), ("a", "gfx1100"), ("b", "navi21"), ("b", "gfx1100")]
        assert first.compiler == COMPILER and len(first.known) == 4 and not first.errors
        offline.asked.clear()
        assert compiled_facts(store, programs, [NAVI21, GFX1100]) == first
        assert offline.asked == []
        assert program_shaders(store, ["digest of p"]) == {"digest of p": tuple(programs[0].shaders)}


def test_only_the_chips_that_lack_a_shader_compile_it(offline: type[FakeCompiler]) -> None:
    with Store.memory() as store:
        compiled_facts(store, [program("p", "a")], [NAVI21])
        compiled_facts(store, [program("p", "a", "b")], [NAVI21, GFX1100])
    assert offline.asked == [("a", "navi21"), ("a", "gfx1100"), ("b", "navi21"), ("b", "gfx1100")]


def test_another_compiler_compiles_all_again(offline: type[FakeCompiler], monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.memory() as store:
        compiled_facts(store, [program("p", "a")], [NAVI21])
        monkeypatch.setattr(facts_module, "installed_compiler", lambda chips: "a newer Mesa")
        assert compiled_facts(store, [program("p", "a")], [NAVI21]).compiler == "a newer Mesa"
    assert offline.asked == [("a", "navi21")] * 2


def test_an_error_is_told_and_not_kept(offline: type[FakeCompiler]) -> None:
    with Store.memory() as store:
        for _ in range(2):
            found = compiled_facts(store, [program("p", "bad", "a")], [NAVI21])
            assert list(found.errors.values()) == ["it crashed"] and len(found.known) == 1
    assert [source for source, _ in offline.asked] == ["bad", "a", "bad"]


def test_an_interrupted_run_goes_on_where_it_was(offline: type[FakeCompiler]) -> None:
    with Store.memory() as store:
        with pytest.raises(KeyboardInterrupt):
            compiled_facts(store, [program("p", "a", "b", "stop")], [NAVI21])
        offline.asked.clear()
        compiled_facts(store, [program("p", "a", "b", "c")], [NAVI21])
    assert offline.asked == [("c", "navi21")]


def test_progress_ends_at_one(offline: type[FakeCompiler]) -> None:
    seen: list[float] = []
    with Store.memory() as store:
        compiled_facts(store, [program("p", "a", "b")], [NAVI21], progress=lambda what, done: seen.append(done))
    assert seen == [0.0, 0.5, 1.0]


def test_a_release_is_read_and_not_written_to(offline: type[FakeCompiler], tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "x.db")) as store:
        compiled_facts(store, [program("p", "a")], [NAVI21])
    release = (tmp_path / "x.db").rename(tmp_path / "lab.wgtune.db")
    before = release.read_bytes()
    for _ in range(2):
        with open_layers(str(release), shipped=False) as layers:
            assert len(compiled_facts(layers, [program("p", "a"), program("q", "b")], [NAVI21]).known) == 2
    assert [source for source, _ in offline.asked] == ["a", "b", "b"]
    assert release.read_bytes() == before


def test_without_a_compiler_the_database_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(chips: Sequence[Chip]) -> str:
        raise DeviceError("there is no Chromium", "apt-get install chromium")

    monkeypatch.setattr(facts_module, "installed_compiler", missing)
    one, two = program("p", "a"), program("q", "b")
    (digest,) = one.shaders
    with Store.memory() as store:
        with pytest.raises(DeviceError, match="no Chromium"):
            compiled_facts(store, [one, two], [NAVI21])
        known = compiled("unused", chip=NAVI21.key)
        keep_facts(store, [type(known)(digest, COMPILER, NAVI21.key, FACTS)], {"digest of p": [digest]})
        found = compiled_facts(store, [one, two], [NAVI21])
        assert (found.compiler, found.problem) == (COMPILER, "there is no Chromium")
        assert found.known == {(digest, NAVI21.key): FACTS}
        assert known_programs(store, ["digest of p", "digest of q"], [NAVI21]) == {"digest of p": (digest,)}


def test_programs_are_known_once_all_chips_know_them(offline: type[FakeCompiler]) -> None:
    with Store.memory() as store:
        compiled_facts(store, [program("p", "a", "b")], [NAVI21])
        assert list(known_programs(store, ["digest of p", "digest of q"], [NAVI21])) == ["digest of p"]
        assert known_programs(store, ["digest of p"], [NAVI21, GFX1100]) == {}


def test_work_is_flops_times_launches() -> None:
    one = KernelProgram("matmul", "", {"unet": 20, "vae": 1}, 2.0)
    assert (one.work(), one.work("unet"), one.work("clip")) == (42.0, 40.0, 0.0)
    assert KernelProgram("matmul", "", {"unet": 20}, None).work() == 0.0
