"""`wgtune db alias`: the user's names are kept, win, and can be taken away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wgtune.cli.app import app


def test_add_list_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTUNE_DB", str(tmp_path / "x.db"))

    def call(*words: str) -> str:
        result = CliRunner().invoke(app, ["db", "alias", *words])
        assert result.exit_code == 0, result.output
        return result.stdout

    call("add", "Foo  GPU*", "--vendor", "nvidia", "--architecture", "ampere")
    rows = json.loads(call("list", "--json"))
    assert rows[0]["name"] == "foo gpu*" and rows[0]["architecture"] == "ampere" and rows[0]["origin"] == "you"
    assert all(row["origin"] == "wgtune" for row in rows[1:]) and len(rows) > 100
    call("remove", "FOO GPU*")
    assert all(row["origin"] == "wgtune" for row in json.loads(call("list", "--json")))
