"""Names that try to be SQL, markup, HTML or orders to the terminal are shown as what they are, and do nothing."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from synthetic_store import (
    LLVMPIPE,
    add_demo,
    baseline,
    failed,
    measure,
    ok,
    session,
    workload,
)
from typer.testing import CliRunner

from wgtune.cli.app import app
from wgtune.database.exchange import admin
from wgtune.database.schema.records import ModelInfo, ModelKernel, SessionOutcome
from wgtune.database.store import Store
from wgtune.reports.html.page import write_page
from wgtune.support import console
from wgtune.support.console import InertConsole, inert
from wgtune.support.enums import TrialState

pytestmark = pytest.mark.slow

NAMES = [
    "'); DROP TABLE trial; --",
    '" OR 1=1 --',
    "%s {0} %(x)s $1 ?",
    "[red]loud[/red] [link=https://example.org]here[/link] [/]",
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>'",
    "&lt;b&gt; &#0; ]]> <!-- --> </style></script>",
    "\x1b[2J\x1b[31mred\x1b]0;title\x07\x9b1m",
    "line\nbreak\rand\x08\x7f\u2028",
    "\u202egnp.exe \u2066 \u200f",
    "=cmd|' /C calc'!A0",
    "../../etc/passwd",
    "名前 🙂 e\u0301",
    "_" * 3000,
    "",
]
ESCAPES = {chr(c) for c in (*range(9), *range(11, 32), *range(127, 160))} | set("\u2028\u202e\u2066\u200f")


def named(path, name):
    """A database in which everything is called ``name``."""
    kernel = workload("k")
    kernel = replace(kernel, name=name, params=tuple(p._replace(name=name) for p in kernel.params))
    device = replace(LLVMPIPE, key=f"vulkan:{name}", vendor=name, architecture=name, model=name)
    with Store.open(str(path)) as store:
        add_demo(store)
        store.add_workloads([kernel])
        model = ModelInfo("e" * 64, name, {"width": 64, "height": 64, "batch": 1, "guidance": True, name: name})
        store.add_model(model, [ModelKernel("unet", kernel.id, 1, 0), ModelKernel(name[:60] or "x", kernel.id, 1, 1)])
        info = session(device, capture_key="e" * 64, model=name)
        info = replace(info, driver=name, toolchain={name: name}, adapter={name: name}, reason=name, host=name[:255])
        session_id = store.begin_session(replace(info, tier=name[:60]))
        baseline(store, session_id, kernel, ok(1e-3))
        measure(store, session_id, kernel, failed(TrialState.RUN_ERROR, name), name)
        store.end_session(session_id, SessionOutcome.FAILED, name)
    return device


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_come_back_as_they_went_in_and_print_inert(name, tmp_path, monkeypatch):
    path = tmp_path / "x.db"
    device = named(path, name)
    assert admin.check(str(path)) == []
    with Store.open(str(path)) as store:
        assert store.devices() == [device] and store.models()[-1].name == name
        assert len(store.best(device.key, [workload("k").id])) == 1
        assert store.best(device.key + "'", [workload("k").id]) == {}
    for command in (["db", "info"], ["report", "coverage"], ["report", "latency"]):
        for terminal in (False, True):
            out = io.StringIO()
            monkeypatch.setattr(
                console, "InertConsole", lambda out=out, terminal=terminal, **_: _Console(out, terminal)
            )
            result = CliRunner().invoke(app, [*command, "--db", str(path)])
            assert result.exception is None, result.exception
            printed = out.getvalue() + result.output
            assert not ESCAPES & set(printed)
            if name.startswith("[red]") and not terminal:
                assert name in printed, "markup is text"
        words = CliRunner().invoke(app, [*command, "--db", str(path), "--json"])
        monkeypatch.undo()
        whole = CliRunner().invoke(app, [*command, "--db", str(path), "--json"]).output
        assert words.exception is None and not ESCAPES & set(whole)
        assert name.strip("\n") in _strings(json.loads(whole)) or name.strip("\n") == ""


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_page_shows_names_as_text(name, tmp_path):
    device = named(tmp_path / "x.db", name)
    plain_device = named(tmp_path / "plain.db", "plain")
    texts = {}
    for file, described in (("x", device), ("plain", plain_device)):
        with Store.open(str(tmp_path / f"{file}.db")) as store:
            write_page(tmp_path / f"{file}.html", store, "e" * 64, described.key, 20)
        texts[file] = _Elements((tmp_path / f"{file}.html").read_text("utf-8"))
    assert texts["x"].tags == texts["plain"].tags, "no name makes an element or an attribute"
    if name.strip():
        assert "".join(name.split())[:40] in "".join("".join(texts["x"].text).split())


def test_a_console_obeys_no_text():
    for text, shown in (
        ("a\x1b[31mb", "a�[31mb"),
        ("\u202eabc", "�abc"),
        ("\udc80", "�"),
        ("tab\tnew\n", "tab\tnew\n"),
    ):
        assert inert(text) == shown
    out = io.StringIO()
    terminal = InertConsole(file=out, force_terminal=True, width=40, highlight=False)
    terminal.print("[bold]own styles[/] \x1b[5mblink", markup=True)
    assert "\x1b[1m" in out.getvalue() and "\x1b[5m" not in out.getvalue()


def test_a_message_of_an_error_is_inert(tmp_path):
    result = CliRunner().invoke(app, ["db", "info", "--db", f"{tmp_path}/\x1b[31m[bold]none.db"])
    assert result.exception is not None
    out = io.StringIO()
    from wgtune.support.errors import DatabaseError

    assert isinstance(result.exception, DatabaseError)
    real, console.stderr = console.stderr, lambda: InertConsole(file=out, highlight=False)
    try:
        console.show_error(result.exception)
    finally:
        console.stderr = real
    assert "[bold]none.db" in out.getvalue() and "\x1b" not in out.getvalue()


class _Console(InertConsole):
    """Without colours, so that every control character in what it prints comes from a name."""

    def __init__(self, out, terminal):
        super().__init__(file=out, force_terminal=terminal, color_system=None, width=100, highlight=False)


class _Elements(HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags: set[tuple[str, tuple[str, ...]]] = set()
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag != "wbr":  # where a long name may be broken
            self.tags.add((tag, tuple(sorted(name for name, _ in attrs))))

    def handle_data(self, data):
        self.text.append(data)


def _strings(value):
    if isinstance(value, dict):
        return {*value, *(text for inner in value.values() for text in _strings(inner))}
    if isinstance(value, list):
        return {text for inner in value for text in _strings(inner)}
    return {value} if isinstance(value, str) else set()
