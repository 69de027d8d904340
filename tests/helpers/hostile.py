"""For the tests of hostile input: a small database of every kind of row, and everything that reads one."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from report_database import fill
from sqlalchemy import insert
from synthetic_store import CAPTURE, CLAMP, CONV, EMBED, LLVMPIPE, MATMUL, SOFTMAX, ok, session, start

from wgtune.database.exchange import admin
from wgtune.database.queries.remeasured import REASON as STABILITY
from wgtune.database.queries.remeasured import last_comparison
from wgtune.database.queries.shared_schedules import REASON as FIDELITY
from wgtune.database.schema.records import OpaqueKind, SessionOutcome, TrialKind
from wgtune.database.schema.rows import opaque
from wgtune.database.store import Store
from wgtune.reports.coverage import coverage
from wgtune.reports.fidelity import fidelity
from wgtune.reports.html.page import write_page
from wgtune.reports.latency import latency
from wgtune.reports.stability import stability
from wgtune.support.enums import Runtime
from wgtune.support.errors import DatabaseError
from wgtune.support.hashing import digest_of

EXAMPLES = int(os.environ.get("WGTUNE_FUZZ", "40"))
"""How many damaged files each fuzzing test tries."""

OTHER = replace(LLVMPIPE, key="vulkan:other")

IDS = [kernel.id for kernel in (CLAMP, CONV, EMBED, MATMUL, SOFTMAX)]


def make(path: Path) -> Path:
    """A database in one file, without a log beside it."""
    with Store.open(str(path)) as store:
        fill(store)
        _measure_again(store)
        text = "not TVM's"
        with store.writing() as connection:
            connection.execute(
                insert(opaque).values(
                    digest=digest_of(text),
                    kind=OpaqueKind.RECORD,
                    source="old.json",
                    position=1,
                    text=text,
                    reason="unreadable",
                    added=datetime.now(timezone.utc),
                )
            )
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


def _measure_again(store: Store) -> None:
    """The best MATMUL again: twice on its device, and on another one."""
    record = store.best(LLVMPIPE.key, [MATMUL.id])[MATMUL.id]
    for device, reason, rounds in ((LLVMPIPE, STABILITY, 2), (OTHER, FIDELITY, 1)):
        made = store.begin_session(replace(session(), device=device, reason=reason))
        for _ in range(rounds):
            store.add_trial(start(made, MATMUL, record.trace, TrialKind.CHECK), ok(1e-3, 2e-3, 3e-3))
        store.end_session(made, SessionOutcome.COMPLETED)


def read_everything(path: Path) -> list[object]:
    """What all readers make of a database; raises DatabaseError and nothing else."""
    answers: list[object] = []
    with Store.open(str(path), create=False) as store:
        answers += [store.devices(), store.models(), store.sessions(), store.model_kernels(CAPTURE)]
        answers += [store.best(LLVMPIPE.key, IDS), store.baselines(LLVMPIPE.key, IDS)]
        answers += [store.best(LLVMPIPE.key, IDS, fits=lambda needs: bool(needs))]
        answers += [store.counts(LLVMPIPE.key, IDS), store.history(LLVMPIPE.key, IDS), store.workloads(IDS)]
        answers += [store.tried(LLVMPIPE.key, workload_id) for workload_id in IDS]
    return answers


def report_everything(path: Path, page: Path) -> None:
    """The reports as well; raises WgtuneError and nothing else."""
    with Store.open(str(path), create=False) as store:
        coverage(store, CAPTURE, LLVMPIPE.key, 20)
        latency(store, CAPTURE, LLVMPIPE.key, 20)
        write_page(page, store, CAPTURE, LLVMPIPE.key, 20)
        fidelity(store, (LLVMPIPE.key, Runtime.WGPU), (OTHER.key, Runtime.WGPU))
        again = last_comparison(store, LLVMPIPE.key, CAPTURE, STABILITY)
        if again is not None:
            stability(store, again)
            stability(store, again, against=again)
    admin.info(str(path))


def change(path: Path, *statements: str) -> None:
    """Runs SQL on the file, past every check of ours."""
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA ignore_check_constraints = ON;" + ";".join(statements))
    connection.close()


def without_rights(action: Callable[[], str]) -> str:
    """What ``action`` answers in a process that may not write what belongs to others; an error's message and hint."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def work() -> None:
        if os.geteuid() == 0:  # root may write anywhere
            os.setgid(65534)
            os.setuid(65534)
        try:
            sender.send(action())
        except DatabaseError as error:
            sender.send(f"{error.message} → {error.hint}")

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()
