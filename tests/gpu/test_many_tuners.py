"""Tuners of one device that share a database share its kernels: killed at random and started again, too."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from folders import HELPERS
from sqlalchemy import select

from wgtune.database.exchange.admin import check
from wgtune.database.schema.tables import Lease, Trial
from wgtune.database.store import Store
from wgtune.devices.device import Device
from wgtune.support.enums import TrialState
from wgtune.tuner.search.task_scheduler import ROUND

TRIALS = 8
KERNELS = 3


@pytest.fixture
def start(tmp_path: Path, device: Device) -> Any:
    """Starts a tuner on the database of a URL."""
    environment = {**os.environ, "WGTUNE_CACHE": str(tmp_path / "cache")}
    children = []

    def run(url: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(HELPERS / "tune_child.py"), url, str(TRIALS), json.dumps(device.to_json())]
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        children.append(child)
        return child

    yield run
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()


def test_two_tuners_share_the_kernels(start: Any, shared_url: str) -> None:
    outputs = [child.communicate(timeout=300) for child in [start(shared_url), start(shared_url)]]
    summaries = [json.loads(out.splitlines()[-1]) for out, errors in outputs]
    assert all(summary["outcome"] == "completed" for summary in summaries), outputs
    _check_shared(shared_url)
    with Store.open(shared_url) as store, store.reading() as connection:
        sessions = Counter(connection.execute(select(Trial.session_id)).scalars())
    # Both did some of it: neither waited for the other to be done.
    assert len(sessions) == 2, sessions


def test_tuners_killed_at_random_complete_the_work(start: Any, postgresql_url: str) -> None:
    chance = random.Random(3)
    for _ in range(2):
        children = [start(postgresql_url), start(postgresql_url)]
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        for child in children:
            time.sleep(chance.random() * 3)
            child.kill()
            child.wait()
    for child in [start(postgresql_url), start(postgresql_url)]:
        _, errors = child.communicate(timeout=300)
        assert child.returncode == 0, errors
    _check_shared(postgresql_url)


def _check_shared(url: str) -> None:
    """The database is whole, the work is done, and no program was measured twice."""
    assert check(url) == []
    with Store.open(url) as store, store.reading() as connection:
        # A session repeats its own trials where the machine's speed has changed.
        rows = connection.execute(
            select(Trial.workload_id, Trial.program_digest, Trial.kind, Trial.state).where(~Trial.repeat)
        ).all()
        assert all(holder is None for holder in connection.execute(select(Lease.session_id)).scalars())
    ended = [row for row in rows if row.state is not TrialState.ABANDONED and row.kind.value in ("baseline", "search")]
    measured = Counter((row.workload_id, row.program_digest) for row in ended if row.program_digest)
    assert set(measured.values()) == {1}, measured
    searched = [row for row in ended if row.kind.value == "search"]
    # The other tuner's last round may be under way when the budget runs out.
    assert len(searched) <= TRIALS * KERNELS + ROUND
    assert Counter(row.kind.value for row in ended)["baseline"] == KERNELS
