"""A file of prompts: what is read, what is refused, which picture a line stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from wgtune.build.runtime.prompts import BadLine, Prompt, plan_images, read_prompts
from wgtune.support.errors import UsageError


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_bytes(data)
    return path


def test_lines_are_numbered_as_an_editor_does(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeffa fox\r\n\n# a comment\n  a 猫  \na\tcat".encode())
    assert read_prompts(path) == ([Prompt(1, "a fox"), Prompt(4, "a 猫"), Prompt(5, "a\tcat")], [])


def test_bad_lines_are_told_and_the_others_kept(tmp_path: Path) -> None:
    path = written(tmp_path, b"a fox\n\xff\xfe\na \x1b[31mcat\n" + b"x" * 20_000 + b"\na dog\n")
    prompts, bad = read_prompts(path)
    assert [p.text for p in prompts] == ["a fox", "a dog"]
    assert [line.line for line in bad] == [2, 3, 4] and all(isinstance(line, BadLine) for line in bad)
    assert "UTF-8" in bad[0].reason and "U+001B" in bad[1].reason and "20,000" in bad[2].reason


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# nothing\n"])
def test_a_file_without_prompts_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UsageError, match="holds no prompts") as raised:
        read_prompts(written(tmp_path, data))
    assert raised.value.hint


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.txt"):
        with pytest.raises(UsageError) as raised:
            read_prompts(path)
        assert str(path) in raised.value.message and raised.value.hint


def test_a_pictures_seed_and_file_follow_from_its_line_alone() -> None:
    few = plan_images([Prompt(4, "a fox")], 100, Path("out"))
    many = plan_images([Prompt(1, "a cat"), Prompt(4, "a fox")], 100, Path("out"))
    assert few[0] == many[1]
    assert (few[0].seed, few[0].path) == (104, Path("out/0004.png"))
    assert plan_images([Prompt(123456, "x")], 0, Path())[0].path.name == "123456.png"
    with pytest.raises(UsageError, match="no seed"):
        plan_images([Prompt(2, "x")], (1 << 64) - 2, Path())
