"""Two kernels and schedules of them, to be kept and applied again."""

from __future__ import annotations

import json

import tvm
from synthetic_store import session
from tuning_kernels import matmul, softmax

from wgtune.database.schema.records import (
    Param,
    TrialEnd,
    TrialKind,
    TrialStart,
    TvmForm,
    WorkloadInfo,
)
from wgtune.database.store import Store
from wgtune.devices.limits import TIERS
from wgtune.tuner.codegen.baseline_schedules import baseline_schedules
from wgtune.tuner.codegen.traces import trace_to_json
from wgtune.tuner.codegen.wgsl import emit_wgsl
from wgtune.tuner.ir import Kernel

TIER = TIERS["default"]


KERNEL, OTHER = matmul(), softmax()


SCHEDULE = next(iter(baseline_schedules(KERNEL, TIER)))


TRACE, DIGEST = trace_to_json(SCHEDULE), emit_wgsl(SCHEDULE.mod, TIER).digest


NO_SUCH_BLOCK = json.dumps([[["GetSBlock", [], ["elsewhere", "main"], ["b0"]]], []])


def workload(kernel: Kernel, version: str = tvm.__version__) -> WorkloadInfo:
    return WorkloadInfo(
        kernel.id,
        kernel.name,
        kernel.text,
        (TvmForm(version, tvm.ir.save_json(kernel.func), "0"),),
        tuple(Param(p.name, p.shape, p.dtype) for p in kernel.params),
        kernel.outputs,
        kernel.flops,
        kernel.nbytes,
    )


def add(store: Store, trace: str, end: TrialEnd, digest: str = DIGEST, kernel: Kernel = KERNEL) -> None:
    session_id = store.begin_session(session())
    store.add_trial(TrialStart(session_id, kernel.id, TrialKind.SEARCH, trace, digest, {}, 1, 0), end)
