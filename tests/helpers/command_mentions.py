"""Commands and options of wgtune that texts name: found in prose, checked against the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from folders import REPOSITORY

from wgtune.cli.app import app

ROOT: Any = typer.main.get_command(app)

_MENTION = re.compile(r"(?P<before>\A|`|see |type |[^.\w/])wgtune (?P<words>[a-z-][^\n`#;,)]*)")
_OPTION = re.compile(r"--?[a-z][a-z-]*")
_IN_HINT = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def options_of(command: Any) -> set[str]:
    """Return every spelling of a command's options."""
    named = {word for parameter in command.params for word in [*parameter.opts, *parameter.secondary_opts]}
    return {*named, "--help", "-h"}


def all_options(command: Any = ROOT) -> set[str]:
    """Return the options of a command and of all commands below it."""
    found = options_of(command)
    for below in getattr(command, "commands", {}).values():
        found |= all_options(below)
    return found


def wrong_mentions(text: str) -> list[str]:
    """Return what ``text`` says of wgtune's commands and is not so.

    Prose such as "wgtune reads" names no command: a first word that is none counts only where the name begins the
    text, or follows a backtick, "see" or "type".
    """
    return [wrong for match in _MENTION.finditer(text) if (wrong := _wrong(match["before"], match["words"].split()))]


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each string in a Python file, with "X" for what an f-string fills in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def hints_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each string in a hint, the second argument of an error of wgtune."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error")):
            continue
        hints = [*node.args[1:2], *(keyword.value for keyword in node.keywords if keyword.arg == "hint")]
        for part in (part for hint in hints for part in ast.walk(hint)):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.lineno, part.value


def wrong_options(hint: str) -> list[str]:
    """Return the options in a hint that no command has; those of pip are pip's."""
    hint = re.sub(r"pip install [^,;]*", "", hint)
    return [f"no command has the option {word}" for word in _IN_HINT.findall(hint) if word not in all_options()]


def code_of(markdown: str) -> list[str]:
    """Return the lines of a Markdown text that stand in code blocks and call wgtune."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix(".venv/bin/") for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("wgtune ")]


def sources() -> list[Path]:
    """Return wgtune's own Python files."""
    tops = ("build", "cli", "database", "devices", "reports", "support", "tuner", "web")
    found = [path for top in tops for path in sorted((REPOSITORY / top).rglob("*.py"))]
    return [*sorted(REPOSITORY.glob("*.py")), *(path for path in found if "node_modules" not in path.parts)]


def _wrong(before: str, words: list[str]) -> str | None:
    command, path, rest = ROOT, ["wgtune"], list(words)
    while hasattr(command, "commands") and rest and re.fullmatch(r"[a-z]+", rest[0]):
        if rest[0] not in command.commands:
            prose = command is ROOT and before not in ("", "`", "see ", "type ")
            return None if prose else f"{' '.join(path)} has no command {rest[0]}"
        command = command.commands[rest[0]]
        path.append(rest.pop(0))
    unknown = {word for word in rest if _OPTION.fullmatch(word)} - options_of(command)
    return f"{' '.join(path)} has no option {', '.join(sorted(unknown))}" if unknown else None
