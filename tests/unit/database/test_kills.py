"""Processes killed at random moments: nothing that was committed is lost, and readers never get in the way.

WGTUNE_TEST_KILLS=100 makes it a hundred runs of each kind.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection

import pytest
from synthetic_store import CONV, EMBED, HOST, KERNELS, LLVMPIPE, MATMUL, add_demo, ok, session, start

from wgtune.database.exchange.admin import check, info
from wgtune.database.leases import claim, give_back, renew
from wgtune.database.schema.records import SessionOutcome
from wgtune.database.store import Store
from wgtune.support.enums import TrialState

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("WGTUNE_TEST_KILLS", "8"))
IDS = [MATMUL.id, CONV.id, EMBED.id]


def _tune_for_ever(url: str, committed: Connection) -> None:
    """Says each trial when it has ended; begins with a new session and the model, which others may be adding too."""
    with Store.open(url) as store:
        add_demo(store)
        session_id = store.begin_session(session())
        by_id = {kernel.id: kernel for kernel in (MATMUL, CONV, EMBED)}
        for i in range(10**6):
            if (mine := claim(store, session_id, IDS, 0.2)) is None:
                continue
            trial_id = store.begin_trial(start(session_id, by_id[mine], f"trace {i}"))
            store.end_trial(trial_id, ok(1e-3))
            committed.send(trial_id)
            renew(store, session_id, mine, 0.2)
            give_back(store, session_id, mine)


class Tuner:
    def __init__(self, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_tune_for_ever, args=(url, sender))
        self._process.start()
        sender.close()

    def kill_after(self, seconds: float) -> list[int]:
        """Kills it that long after its first trial; the trials that it says have ended."""
        assert self._receiver.poll(60), "the tuner ended no trial"
        time.sleep(seconds)
        assert self._process.pid is not None and self._process.is_alive(), "the tuner ended by itself"
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()
        told = []
        while self._receiver.poll():
            try:
                told.append(self._receiver.recv())
            except EOFError:
                break
        return told


def test_kills_lose_nothing_committed(shared_url):
    chance = random.Random(7)
    told: list[int] = []
    for _ in range(KILLS):
        tuners = [Tuner(shared_url) for _ in range(1 + chance.randrange(2))]
        for tuner in tuners:
            told += tuner.kill_after(chance.random() * 0.15)
        with Store.open(shared_url) as store:
            store.abandon_dead(HOST)
            ended = {summary.trial_id for kernel in IDS for summary in store.tried(LLVMPIPE.key, kernel)}
            assert set(told) <= ended
            assert all(kept.outcome is SessionOutcome.KILLED for kept in store.sessions())
            assert not any(TrialState.RUNNING in states for states in store.counts(LLVMPIPE.key, IDS).values())
        assert check(shared_url) == []
    with Store.open(shared_url) as store:
        assert store.model_kernels("c" * 64) == KERNELS
        # Nothing ended twice, nor for two.
        assert len(told) == len(set(told))


_READER = """
import sys, time
from wgtune.database.exchange.admin import info
from wgtune.database.store import Store
url, device, workload, seconds = sys.argv[1:]
end, longest, reads = time.monotonic() + float(seconds), 0.0, 0
while time.monotonic() < end:
    begun = time.monotonic()
    with Store.open(url, create=False) as store:
        store.best(device, [workload]), store.history(device, [workload]), store.sessions()
    info(url)
    longest, reads = max(longest, time.monotonic() - begun), reads + 1
print(longest, reads)
"""


@pytest.mark.parametrize("killed", [False, True])
def test_reports_neither_block_a_run_nor_break_it(shared_url, killed):
    with Store.open(shared_url) as store:
        add_demo(store)
    tuner = Tuner(shared_url)
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", _READER, shared_url, LLVMPIPE.key, MATMUL.id, "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    if killed:
        readers.pop().kill()
    told = tuner.kill_after(2.5)
    for reader in readers:
        out, errors = reader.communicate(timeout=60)
        assert reader.returncode == 0, errors
        longest, reads = out.split()
        # SQLite's writers wait up to 30 s for each other; a reader waits for nobody.
        assert float(longest) < 10 and int(reads) > 0
    assert len(told) > 20
    assert check(shared_url) == []


def test_a_long_read_sees_one_moment_and_holds_nobody_up(shared_url):
    """A report that takes its time: what is committed meanwhile is there for the next one."""
    with Store.open(shared_url) as writer, Store.open(shared_url) as reader:
        add_demo(writer)
        session_id = writer.begin_session(session())
        with reader.reading():
            for i in range(50):
                writer.end_trial(writer.begin_trial(start(session_id, MATMUL, f"trace {i}")), ok(1e-3))
        assert reader.counts(LLVMPIPE.key, [MATMUL.id]) == {MATMUL.id: {TrialState.OK: 50}}
    assert info(shared_url).trials == {LLVMPIPE.key: {TrialState.OK: 50}}
