"""A trial's input and result; kernels and schedules read back from the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import tvm

from ...database.schema.records import TrialKind, WorkloadInfo
from ...database.tvm.graph_json import load_json
from ...devices.limits import Tier
from ...devices.program import AnyProgram
from ...support.enums import TrialState
from ...support.errors import WgtuneError
from ..codegen.emit import emit
from ..codegen.traces import TraceError, replay
from ..codegen.wgsl import EmitError
from ..ir import Kernel, TensorSpec


@dataclass(frozen=True)
class Attempt:
    """A schedule to be measured in one trial.

    Attributes:
        kind: what the trial is for.
        trace: the schedule, as the JSON text of its TVM trace.
        program: what the schedule was lowered to; None if lowering failed.
        error: why lowering failed, "" if it did not.
        repeat: whether the trial replaces earlier measurements of the same schedule in rankings.
        features: what search knows of the schedule, where it proposed it.
    """

    kind: TrialKind
    trace: str
    program: AnyProgram | None
    error: str
    repeat: bool = False
    features: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. ``latency_s`` is the median of ``samples_s`` in seconds, None unless the state is `ok`."""

    state: TrialState
    latency_s: float | None
    error: str
    samples_s: tuple[float, ...] = ()


def stored_kernel(info: WorkloadInfo) -> Kernel:
    """Return the kernel of a workload in the database, as the installed TVM stored it.

    Raises:
        WgtuneError: no form of the workload was written by the installed TVM version.
    """
    form = next((form for form in info.forms if form.tvm_version == tvm.__version__), None)
    if form is None:
        known = ", ".join(form.tvm_version for form in info.forms) or "none"
        raise WgtuneError(
            f"the kernel {info.name} is stored as TVM {known} writes it, and this is TVM {tvm.__version__}",
            "capture its model again with `wgtune tune --trials 0`, which adds it for this TVM",
        )
    params = tuple(TensorSpec(param.name, param.shape, param.dtype) for param in info.params)
    func = load_json(form.module)
    return Kernel(info.id, info.name, info.text, func, params, info.outputs, info.flops, info.nbytes)


def stored_attempt(kernel: Kernel, trace: str, tier: Tier, kind: TrialKind) -> Attempt:
    """Replay ``trace`` on ``kernel`` and lower the result for ``tier``; without a program if either fails."""
    try:
        return Attempt(kind, trace, emit(replay(kernel, trace).mod, tier), "")
    except (TraceError, EmitError) as failure:
        return Attempt(kind, trace, None, failure.message)
