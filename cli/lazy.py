"""Groups of commands whose modules are imported only when a command is chosen.

A group knows each command's name, one line of help, an example and where its function lives; that is all that the
group's own `--help` needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from .options import TYPER

Command = Any
"""A click command. Newer versions of Typer carry a copy of click, older ones import it: there is no type for both."""


@dataclass(frozen=True)
class LazyCommand:
    """A command that is imported when it is chosen.

    Attributes:
        target: The function, as ``module:function`` with the module relative to `wgtune.cli`.
        summary: The first line of the function's docstring.
        example: What the command's help shows as an example, in Markdown.
    """

    target: str
    summary: str
    example: str

    def load(self, name: str) -> Command:
        """Import the function and return its command."""
        module, function = self.target.split(":")
        app = typer.Typer(pretty_exceptions_enable=False, **TYPER)
        app.command(name, epilog=f"Example: {self.example}")(
            getattr(import_module(f".{module}", __package__), function)
        )
        return typer.main.get_command(app)


@dataclass(frozen=True)
class CommandGroup:
    """A group of commands below the program or below another group."""

    summary: str
    entries: Mapping[str, LazyCommand | CommandGroup]

    def load(self, name: str) -> Command:
        """Return the group; imports none of its commands."""
        settings: dict[str, Any] = {key: value for key, value in TYPER.items() if key != "add_completion"}
        return LazyGroup(self.entries, name=name, help=self.summary, **settings)


class LazyGroup(TyperGroup):
    """A group that imports a command only when the command is asked for."""

    def __init__(self, entries: Mapping[str, LazyCommand | CommandGroup], **settings: Any) -> None:
        super().__init__(**settings)
        self._entries = entries
        self.commands = _LoadedCommands(entries)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the table, without an import."""
        return list(self._entries)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the group's help from the summaries, without an import."""
        loaded = self.commands
        self.commands = {
            name: TyperCommand(name, help=entry.summary, rich_markup_mode="markdown")
            for name, entry in self._entries.items()
        }
        try:
            super().format_help(ctx, formatter)
        finally:
            self.commands = loaded


class _LoadedCommands(MutableMapping[str, Any]):
    """The commands of a group by name, each loaded at its first look-up."""

    def __init__(self, entries: Mapping[str, LazyCommand | CommandGroup]) -> None:
        self._entries = entries
        self._loaded: dict[str, Command] = {}

    def __getitem__(self, name: str) -> Command:
        if name not in self._loaded:
            self._loaded[name] = self._entries[name].load(name)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._entries, **self._loaded})

    def __len__(self) -> int:
        return len({**self._entries, **self._loaded})
