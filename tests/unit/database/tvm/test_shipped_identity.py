"""The shipped releases: every workload keeps its id and hash, and every schedule is read and written as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tvm
from sqlalchemy import select

from wgtune.database.queries.layers import SHIPPED, release_files
from wgtune.database.readonly import opened
from wgtune.database.schema.records import WorkloadInfo
from wgtune.database.schema.rows import schedule, session, trial, workload
from wgtune.database.sql_reader import SqlReader
from wgtune.database.tvm.kernel_identity import canonical_text, kernel_id, with_canonical_names
from wgtune.database.tvm.modules import module_hash, named_by_position, stored_module, workload_of
from wgtune.devices.limits import TIERS
from wgtune.tuner.codegen.traces import replay, schedulable_module, trace_to_json
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.ir import Kernel

pytestmark = pytest.mark.slow


@pytest.fixture(params=release_files([SHIPPED], shipped=False), ids=lambda path: path.name, scope="module")
def release(request: pytest.FixtureRequest) -> Iterator[SqlReader]:
    path: Path = request.param
    with opened(str(path)) as reader:
        yield reader


@pytest.fixture(scope="module")
def workloads(release: SqlReader) -> dict[str, WorkloadInfo]:
    with release.reading() as connection:
        ids = list(connection.execute(select(workload.c.digest)).scalars())
    assert ids
    return release.workloads(ids)


def kernel_of(info: WorkloadInfo) -> Kernel:
    module = stored_module(info)
    assert module is not None
    return Kernel(info.id, info.name, info.text, module["main"], (), info.outputs, info.flops, info.nbytes)


def test_every_workload_keeps_its_id_and_hash(workloads: dict[str, WorkloadInfo]) -> None:
    for info in workloads.values():
        module = stored_module(info)
        assert module is not None
        named = with_canonical_names(module["main"])
        assert kernel_id(named) == workload_of(module) == info.id and canonical_text(named) == info.text
        form = next(form for form in info.forms if form.tvm_version == tvm.__version__)
        assert module_hash(named) == form.structural_hash


def test_search_and_stored_traces_start_from_one_function(workloads: dict[str, WorkloadInfo]) -> None:
    for info in workloads.values():
        kernel = kernel_of(info)
        scheduled = tvm.ir.save_json(schedulable_module(kernel)["main"])
        assert scheduled == tvm.ir.save_json(named_by_position(stored_module(info))["main"])
        assert scheduled == tvm.ir.save_json(with_canonical_names(schedulable_module(kernel)["main"]))


@pytest.mark.slow
def test_every_schedule_replays_is_written_the_same_and_becomes_webgpu(
    release: SqlReader, workloads: dict[str, WorkloadInfo]
) -> None:
    kernels = {key: kernel_of(info) for key, info in workloads.items()}
    query = (
        select(workload.c.digest, schedule.c.trace, session.c.tier)
        .select_from(trial)
        .join(workload, workload.c.id == trial.c.workload_id)
        .join(schedule, schedule.c.id == trial.c.schedule_id)
        .join(session, session.c.id == trial.c.session_id)
    )
    with release.reading() as connection:
        rows = connection.execute(query).all()
    assert len(rows) > 600
    changed = []
    for row in rows:
        replayed = replay(kernels[row.digest], row.trace)
        # Programs change with the code generator: what a record verified is not what its schedule becomes today.
        program = emit_wgsl(replayed.mod, TIERS[row.tier])
        if trace_to_json(replayed) != row.trace or not program.dispatches:
            changed.append((kernels[row.digest].name, row.trace))
    assert not changed
