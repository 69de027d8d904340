"""A session that is killed or interrupted loses at most its running trial, and the same command goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from folders import HELPERS

from wgtune.devices.device import Device

TRIALS = 6


@pytest.fixture
def start(tmp_path: Path, device: Device) -> Any:
    """Starts a tuning process on one database, with a cache of its own."""
    environment = {**os.environ, "WGTUNE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(HELPERS / "tune_child.py"), str(tmp_path / "db"), str(TRIALS)]
    children = []

    def run(*options: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [*command, json.dumps(device.to_json()), *options],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child

    yield run
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()


def read(child: subprocess.Popen[str], word: str) -> list[str]:
    """The child's lines up to the first that begins with ``word``."""
    assert child.stdout is not None and child.stderr is not None
    lines = []
    for line in child.stdout:
        lines.append(line.strip())
        if line.startswith(word):
            return lines
    raise AssertionError(f"no line {word!r} in {lines}; {child.stderr.read()}")


def trials(path: Path) -> list[tuple[str, str, str, str]]:
    """Workload, kind, state and program digest of every trial."""
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        return database.execute(
            "select workload.digest, lower(kind), lower(state), program_digest from trial "
            "join workload on workload.id = workload_id"
        ).fetchall()


def assert_nothing_twice(found: list[tuple[str, str, str, str]]) -> None:
    programs = Counter((workload, digest) for workload, _, state, digest in found if digest and state != "abandoned")
    assert [program for program, count in programs.items() if count > 1] == []


def test_killed_at_random_moments_it_goes_on(start, tmp_path):
    rng = random.Random(20)
    ended_before = 0
    for kill in range(3):
        child = start(*["overlap"] * (kill % 2))
        lines = read(child, "SessionStarted")
        for _ in range(rng.randrange(1, 4)):  # a trial that was reported is committed
            lines += read(child, "")
        time.sleep(rng.random() * 0.4)
        child.kill()
        child.wait()
        found = trials(tmp_path / "db")
        running = [trial for trial in found if trial[2] == "running"]
        assert len(running) <= 1
        reported = sum(1 for line in lines if line.startswith(("baseline", "search")))
        ended = sum(1 for trial in found if trial[2] not in ("running", "abandoned"))
        assert ended >= ended_before + reported
        ended_before = ended
        assert sum(1 for trial in found if trial[2] in ("running", "abandoned")) <= kill + 1
        assert_nothing_twice(found)
    child = start()
    summary = json.loads(read(child, "{")[-1])
    assert child.wait() == 0 and summary["outcome"] == "completed"
    found = trials(tmp_path / "db")
    assert_nothing_twice(found)
    assert not [trial for trial in found if trial[2] == "running"]
    assert summary["measured"] == 3 and summary["best_s"] <= summary["baseline_s"]
    assert sum(1 for trial in found if trial[1] == "search" and trial[2] != "abandoned") <= 3 * TRIALS

    again = start()
    summary = json.loads(read(again, "{")[-1])
    assert again.wait() == 0
    assert summary["trials"] == {} and trials(tmp_path / "db") == found


@pytest.mark.parametrize(("number", "options"), [(signal.SIGINT, ["overlap"]), (signal.SIGTERM, [])])
def test_the_first_signal_ends_the_session_cleanly(start, tmp_path, number, options):
    child = start(*options)
    read(child, "baseline")
    child.send_signal(number)
    lines = read(child, "{")
    assert "Stopping" in lines
    summary = json.loads(lines[-1])
    assert child.wait(timeout=20) == 130
    assert child.stderr is not None and "Traceback" not in child.stderr.read()
    assert summary["outcome"] == "interrupted"
    with closing(sqlite3.connect(tmp_path / "db")) as database:
        assert database.execute("select lower(outcome) from session").fetchall() == [("interrupted",)]
    assert not [trial for trial in trials(tmp_path / "db") if trial[2] == "running"]


def test_the_second_signal_leaves_at_once(start, tmp_path):
    child = start()
    read(child, "SessionStarted")
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=10) == 130
    found = json.loads(read(start(), "{")[-1])
    assert found["outcome"] == "completed"
