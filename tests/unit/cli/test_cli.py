"""The command line as scripts and readers meet it: help, exit statuses, errors, and what the README says of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from command_mentions import code_of, hints_of, sources, texts_of, wrong_mentions, wrong_options
from folders import REPOSITORY
from typer.testing import CliRunner

from wgtune.cli import app as cli
from wgtune.cli.lazy import CommandGroup
from wgtune.support.errors import UsageError

README = REPOSITORY / "README.md"
ROOT = typer.main.get_command(cli.app)


def commands(group=ROOT, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, (*path, name))
        else:
            found[(*path, name)] = command
    return found


def run(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wgtune", *args],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        timeout=120,
        check=False,
    )


class Shown(NamedTuple):
    """What a call printed, with single spaces, and the modules of wgtune.cli that it imported."""

    help: str
    modules: set[str]


def modules_after(*words: str) -> Shown:
    code = (
        f"import sys; sys.argv = {['wgtune', *words]!r}\n"
        "from wgtune.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('modules:', *sys.modules)"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True, env={**os.environ, "COLUMNS": "300"})
    shown, _, modules = printed.rpartition("modules:")
    own = {name.removeprefix("wgtune.cli.") for name in modules.split() if name.startswith("wgtune.cli.")}
    return Shown(re.sub(r"[│`\s]+", " ", shown), own)


def test_the_commands_that_users_are_promised() -> None:
    assert {path[0] for path in commands()} == {
        "devices", "kernels", "tune", "agent", "report", "build", "generate", "web", "demo", "db",
    }  # fmt: skip


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_help_of_every_command_has_an_example_of_it(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli.app, [*path, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"Example: wgtune {' '.join(path)}" in re.sub(r"[`\s]+", " ", result.output)


@pytest.mark.parametrize("path", [p for p in commands() if p not in {("web",), ("demo",), ("agent",)}], ids=" ".join)
def test_every_command_with_a_result_has_json(path: tuple[str, ...]) -> None:
    assert any("--json" in parameter.opts for parameter in commands()[path].params)


def test_every_command_is_in_the_readme() -> None:
    text = README.read_text(encoding="utf-8")
    for path in commands():
        assert f"wgtune {' '.join(path)}" in text, path


@pytest.mark.parametrize("path", [README, *sorted((REPOSITORY / "docs").rglob("*.md"))], ids=lambda path: path.name)
def test_documentation_names_only_commands_and_options_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [wrong for part in (text, *code_of(text)) for wrong in wrong_mentions(part)] == []


def test_messages_and_docstrings_name_only_commands_and_options_that_exist() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}: {wrong}"
        for path in sources()
        for line, text in texts_of(path)
        for wrong in wrong_mentions(text)
    ]
    assert found == []


def test_hints_name_only_options_that_exist() -> None:
    hints = [(path, *hint) for path in sources() for hint in hints_of(path)]
    assert len(hints) > 100
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}: {wrong}" for path, line, hint in hints for wrong in wrong_options(hint)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("capture the model again: wgtune kernels --no-cache", "wgtune kernels has no option --no-cache"),
        ("`wgtune frobnicate` does it", "wgtune has no command frobnicate"),
        ("wgtune db mend", "wgtune db has no command mend"),
        ("look with `wgtune tune --kernels X`, or --nothing", None),
        ("what wgtune reads; wgtune db info lists it; --all too", None),
    ],
)
def test_what_counts_as_a_wrong_mention(text: str, wrong: str | None) -> None:
    assert wrong_mentions(text) == ([wrong] if wrong else [])


def groups(group=ROOT, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    below = {
        k: v
        for name, c in group.commands.items()
        if hasattr(c, "commands")
        for k, v in groups(c, (*path, name)).items()
    }
    return {path: group, **below}


def summaries(entries=cli.COMMANDS, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    found = {}
    for name, entry in entries.items():
        found[(*path, name)] = entry.summary
        if isinstance(entry, CommandGroup):
            found |= summaries(entry.entries, (*path, name))
    return found


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_the_list_of_commands_says_what_the_command_says_itself(path: tuple[str, ...]) -> None:
    assert summaries()[path] == commands()[path].help.splitlines()[0]


@pytest.mark.parametrize("path", groups(), ids=lambda path: " ".join(("wgtune", *path)))
def test_help_of_a_group_lists_its_commands_and_imports_none(path: tuple[str, ...]) -> None:
    shown = modules_after(*path, "--help")
    for name, text in summaries().items():
        if name[:-1] == path:
            assert f"{name[-1]} {text.replace('`', '')}" in shown.help
    assert shown.modules == {"app", "lazy", "options"}


@pytest.mark.parametrize(
    ("path", "own"),
    [
        (("tune",), {"tune", "inputs", "browser", "cluster"}),
        (("web",), {"web"}),
        (("db", "alias", "list"), {"database"}),
    ],
)
def test_help_of_a_command_imports_its_own_module_only(path: tuple[str, ...], own: set[str]) -> None:
    assert modules_after(*path, "--help").modules == {"app", "lazy", "options"} | own


def test_help_of_no_command_imports_tvm_or_pytorch() -> None:
    code = (
        "import sys, typer; from wgtune.cli.app import app\n"
        "def load(command):\n"
        "    for below in getattr(command, 'commands', {}).values(): load(below)\n"
        "load(typer.main.get_command(app))\n"
        "print('wgtune.cli.database' in sys.modules, *{'torch', 'tvm'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "True"


def test_help_is_fast_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from wgtune.cli.app import app; "
        "print([m for m in ('torch', 'tvm', 'diffusers', 'wgpu', 'pandas', 'sqlalchemy') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_an_unknown_word_exits_with_2() -> None:
    assert run("frobnicate").returncode == 2
    assert run("kernels").returncode == 2


def test_an_unknown_model_exits_with_5_and_names_the_known_ones() -> None:
    result = run("kernels", "--model", "no-such-model")
    assert result.returncode == 5
    assert "no-such-model" in result.stderr and "sd-v1-5" in result.stderr
    assert "Traceback" not in result.stderr and not result.stdout


def test_an_empty_database_says_what_to_type(tmp_path: Path) -> None:
    result = run("report", "latency", "--no-releases", env={"WGTUNE_DATA": str(tmp_path)})
    assert result.returncode != 0
    assert "wgtune tune" in result.stderr and "Traceback" not in result.stderr


def test_the_shipped_release_is_found_without_being_told(tmp_path: Path) -> None:
    result = run("report", "coverage", "--json", env={"WGTUNE_DATA": str(tmp_path)})
    assert result.returncode == 0
    assert json.loads(result.stdout)["kernels"]


def test_a_file_that_is_no_database_exits_with_4(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database" * 100)
    result = run("db", "info", "--db", str(path))
    assert result.returncode == 4
    assert "notes.txt" in result.stderr and "Traceback" not in result.stderr
    assert path.read_text().startswith("not a database")


def test_a_folder_that_is_no_bundle_exits_with_6(tmp_path: Path) -> None:
    result = run("generate", "--bundle", str(tmp_path), "--prompt", "x", "-o", str(tmp_path / "x.png"))
    assert result.returncode == 6
    assert str(tmp_path) in result.stderr.replace("\n", "") and not (tmp_path / "x.png").exists()


def test_an_unknown_device_exits_with_3_and_lists_what_there_is(tmp_path: Path) -> None:
    result = run("tune", "--model", "sd-v1-5", "--device", "no-such-gpu", "--db", str(tmp_path / "trials.db"))
    assert result.returncode == 3
    assert "no-such-gpu" in result.stderr


def test_an_unknown_tier_exits_with_2() -> None:
    result = run("tune", "--model", "sd-v1-5", "--tier", "huge")
    assert result.returncode == 2
    assert "default" in result.stderr


def test_devices_as_json() -> None:
    devices = json.loads(run("devices", "--json").stdout)
    here = [device for device in devices if "compile_only" not in device]
    assert here and all(device["key"] and device["limits"] for device in here)
    assert all(device["key"].startswith("compile-only:") != (device in here) for device in devices)


@pytest.mark.parametrize("words", [["tune", "-m", "sd-v1-5"], ["tune", "-m", "x", "--scheduler", "tcp://127.0.0.1:9"]])
def test_a_pages_options_without_a_page_are_a_usage_error(words: list[str]) -> None:
    result = CliRunner().invoke(cli.app, [*words, "--port", "1"])
    assert isinstance(result.exception, UsageError) and "--device browser" in result.exception.hint
