"""Tables: fitted to a terminal, whole when piped, exact as JSON; and the words that numbers become."""

from __future__ import annotations

import io
import json
import math
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from wgtune.reports.tables import Column, print_json, print_rows, shorten
from wgtune.support import formatting as units
from wgtune.support.enums import TrialState
from wgtune.support.serialization import plain

ROWS = [
    {"name": "conv2d_add_silu_a_very_long_name_33445566", "time": 12.5, "note": None, "extra": 1},
    {"name": "softmax_5e6f7a8b", "time": 3.25, "note": "slow", "extra": math.nan},
]
COLUMNS = [
    Column("name", "kernel", flexible=True),
    Column("time", "time ms", "right", lambda value: f"{value:.2f}"),
    Column("note", "a note of some length", drop=1),
    Column("extra", "another column", drop=2),
]


def printed(rows=ROWS, columns=COLUMNS, *, width=80, terminal=False, as_json=False) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    print_rows(rows, columns, json=as_json, console=console)
    return console.file.getvalue()


def test_piped_tables_are_whole_and_aligned():
    lines = printed(width=20).splitlines()
    assert lines == [
        "kernel                                     time ms  a note of some length  another column",
        "conv2d_add_silu_a_very_long_name_33445566    12.50  —                      1",
        "softmax_5e6f7a8b                              3.25  slow                   nan",
    ]


@pytest.mark.parametrize(
    ("width", "shown", "gone"),
    [
        (120, ["a_very_long_name", "a note of some length", "another column"], []),
        (80, ["33445566", "a note of some length", "another column"], ["a_very_long_name"]),
        (60, ["33445566", "a note of some length"], ["another column"]),
        (40, ["conv2d", "33445566", "12.50"], ["a note of some length", "another column"]),
    ],
)
def test_terminal_tables_fit(width, shown, gone):
    text = printed(width=width, terminal=True)
    assert all(cell_len(line.rstrip()) <= width for line in text.splitlines())
    assert all(word in text for word in shown)
    assert not any(word in text for word in gone)


def test_json_has_every_value_and_nothing_else():
    text = printed(width=20, terminal=True, as_json=True)
    assert json.loads(text) == [ROWS[0], {**ROWS[1], "extra": None}]


def test_control_characters_do_not_reach_the_terminal():
    row = {"name": "evil\x1b[31m\x07[bold]", "time": 1.0, "note": "a\nb"}
    for terminal in (False, True):
        text = printed([row], terminal=terminal, width=120)
        assert "\x1b" not in text and "\x07" not in text and "[bold]" in text and "a b" in text


def test_an_empty_table_is_a_heading():
    assert printed([]).split() == ["kernel", "time", "ms", "a", "note", "of", "some", "length", "another", "column"]
    assert json.loads(printed([], as_json=True)) == []


def test_plain_values():
    moment = datetime(2026, 11, 21, 2, 0, tzinfo=timezone.utc)
    sent = {TrialState.OK: 1, "when": moment, "where": Path("a"), "many": (1, math.inf), "set": {"b", "a"}}
    expected = {"ok": 1, "when": "2026-11-21T02:00:00+00:00", "where": "a", "many": [1, None], "set": ["a", "b"]}
    assert plain(sent) == expected
    with pytest.raises(TypeError):
        plain(object())
    console = Console(file=io.StringIO(), width=20)
    print_json({"a": "x" * 50, "b": "[red]"}, console)
    assert json.loads(console.file.getvalue()) == {"a": "x" * 50, "b": "[red]"}


@given(st.text(min_size=0, max_size=40), st.integers(3, 50))
def test_shortened_text_fits(text, width):
    cut = shorten(text, width)
    if cell_len(text) <= width:
        assert cut == text
    elif text.isascii():
        assert len(cut) == width and cut[0] == text[0] and (width < 5 or cut[-1] == text[-1])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "—"),
        (0, "0 s"),
        (2e-9, "2.00 ns"),
        (1.234e-5, "12.3 µs"),
        (9.996e-4, "1.00 ms"),
        (0.25, "250 ms"),
        (0.9996, "1.00 s"),
        (1234.5, "1,234 s"),
    ],
)
def test_durations(seconds, words):
    assert units.duration(seconds) == words


@given(st.floats(1e-9, 1e5))
def test_durations_keep_three_digits(seconds):
    number, unit = units.duration(seconds).split()
    scale = {"s": 1, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[unit]
    assert math.isclose(float(number.replace(",", "")) * scale, seconds, rel_tol=0.006)


@pytest.mark.parametrize(
    ("values", "name"), [([2e-6, 3e-4], "µs"), ([2e-6, 3e-3], "ms"), ([0.2, 30.0], "s"), ([None], "ms"), ([], "ms")]
)
def test_a_column_has_one_unit(values, name):
    unit = units.column_unit(values)
    assert unit.name == name
    assert all(float(unit.format(value).replace(",", "")) > 0 for value in values if value)
    assert unit.format(None) == "—"


def test_other_numbers():
    assert (units.ratio(3.417), units.percent(0.1234), units.error(1.23e-6)) == ("3.42 ×", "12.3 %", "1.2e-06")
    assert (units.size(0), units.size(1536), units.size(3 << 30)) == ("0 B", "1.50 KiB", "3.00 GiB")
    assert (units.digits(0.0), units.digits(0.001234), units.digits(999.6), units.digits(1e6)) == (
        "0",
        "0.00123",
        "1,000",
        "1,000,000",
    )
