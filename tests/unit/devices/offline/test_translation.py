"""WGSL to SPIR-V through a browser that refuses, crashes, hangs or is not there."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest
from fake_chromium import VERSION, FakeChromium, fake_assembler

from wgtune.devices.offline import translation
from wgtune.devices.offline.devtools import BrowserGone, Chromium, chromium_version
from wgtune.devices.offline.translation import TranslationError, Translator
from wgtune.devices.offline.translators import Translators
from wgtune.devices.program import Shader
from wgtune.support.errors import DeviceError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="compile-only devices need Linux")


def shader(source: str) -> Shader:
    return Shader("main_kernel", source, (1, 1, 1))


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeChromium:
    fake = FakeChromium(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("WGTUNE_CHROMIUM", str(fake.path))
    monkeypatch.setattr(translation, "find_assembler", lambda: str(fake_assembler(tmp_path)))
    return fake


def test_a_shader_and_its_entry_go_in_and_the_dump_comes_out(browser: FakeChromium) -> None:
    with Translator() as translator:
        assert translator.version == "Chromium 1.2.3.4"
        found = translator.spirv(shader('text "quoted"')).decode()
    assert found.startswith("(async") and '"text \\"quoted\\"", "main_kernel"' in found
    assert "Dumped" not in found
    (start,) = browser.starts
    assert "dump_shaders" in start and "swiftshader" in start
    # Only root needs, and gets, a browser without its sandbox.
    assert ("--no-sandbox" in start) == (os.geteuid() == 0)


def test_a_dump_that_comes_after_the_answer_is_waited_for(browser: FakeChromium) -> None:
    with Translator() as translator:
        assert b"LATE one" in translator.spirv(shader("LATE one"))
        assert b"LATE two" in translator.spirv(shader("LATE two"))


def test_a_refused_shader_names_the_reason_and_the_next_one_works(browser: FakeChromium) -> None:
    with Translator() as translator:
        with pytest.raises(TranslationError, match=r"^line 3: unresolved value 'x'$"):
            translator.spirv(shader("REFUSE"))
        assert b"fine" in translator.spirv(shader("fine"))
    assert len(browser.starts) == 1


@pytest.mark.parametrize(("word", "reason"), [("CRASH", "a fault"), ("THROW", "Uncaught")])
def test_after_a_crash_the_browser_is_started_again(browser: FakeChromium, word: str, reason: str) -> None:
    with Translator() as translator:
        with pytest.raises(TranslationError, match=reason):
            translator.spirv(shader(word))
        assert b"fine" in translator.spirv(shader("fine"))
    assert len(browser.starts) == 2


def test_a_hang_ends_in_time_and_costs_one_shader(browser: FakeChromium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation, "_SHADER_TIMEOUT_S", 3.0)
    with Translator() as translator:
        with pytest.raises(TranslationError, match="did not answer in time"):
            translator.spirv(shader("HANG"))
        assert b"fine" in translator.spirv(shader("fine"))


def test_a_device_prints_so_many_shaders_and_then_another_is_asked_for(
    browser: FakeChromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translation, "_SHADERS_PER_DEVICE", 3)
    with Translator() as translator:
        for number in range(7):
            assert f"shader {number}".encode() in translator.spirv(shader(f"shader {number}"))
    assert (len(browser.starts), browser.devices) == (1, 3)


def test_a_browser_without_webgpu_is_told_as_such(browser: FakeChromium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CHROMIUM_ADAPTER", "Chromium offers no WebGPU adapter")
    with Translator() as translator, pytest.raises(DeviceError, match="no WebGPU adapter") as refused:
        translator.spirv(shader("x"))
    assert "WGTUNE_CHROMIUM" in refused.value.hint


def test_a_text_that_is_no_spirv_costs_one_shader(browser: FakeChromium) -> None:
    with Translator() as translator:
        with pytest.raises(TranslationError, match="spirv-as: error: 3: expected an opcode"):
            translator.spirv(shader("BROKEN"))
        assert b"fine" in translator.spirv(shader("fine"))


def test_a_browser_that_says_nothing_is_ended_with_its_profile(
    browser: FakeChromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_CHROMIUM", "silent")
    with pytest.raises(BrowserGone, match="in time"):
        Chromium(str(browser.path), [], timeout_s=2)
    assert not list(Path(tempfile.gettempdir()).iterdir())


def test_nothing_is_left_behind(browser: FakeChromium) -> None:
    with Translator() as translator:
        translator.spirv(shader("x"))
        process = translator._browser._process
        assert process.poll() is None and list(Path(tempfile.gettempdir()).iterdir())
    assert process.poll() is not None and not list(Path(tempfile.gettempdir()).iterdir())


def test_several_browsers_keep_the_order(browser: FakeChromium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    translators = Translators()
    try:
        words = [f"shader {n} {'REFUSE' if n % 5 == 3 else 'fine'}" for n in range(12)]
        found = list(translators.translate([shader(word) for word in words]))
    finally:
        translators.close()
    for word, code in zip(words, found, strict=True):
        assert isinstance(code, TranslationError) if "REFUSE" in word else word in code.decode()
    assert len(browser.starts) == 2 and not list(Path(tempfile.gettempdir()).iterdir())


def test_ending_them_ends_what_hangs(browser: FakeChromium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    translators = Translators()
    codes = translators.translate([shader(word) for word in ("fine", "HANG", "HANG", "fine", "fine")])
    assert b"fine" in next(codes)
    translators.close()  # within the test's time limit, which the hang exceeds
    assert not list(Path(tempfile.gettempdir()).iterdir())


def test_the_version_is_read_from_what_the_browser_prints(tmp_path: Path) -> None:
    assert chromium_version(str(FakeChromium(tmp_path).path)) == "Chromium 1.2.3.4"
    assert VERSION.startswith("Chromium 1.2.3.4 ")
    mute = tmp_path / "mute"
    mute.write_text(f"#!{sys.executable}\nprint('no numbers here')\n")
    mute.chmod(0o755)
    with pytest.raises(DeviceError, match="does not tell its version"):
        chromium_version(str(mute))
    with pytest.raises(DeviceError, match="does not tell its version"):
        chromium_version(str(tmp_path / "nowhere"))
