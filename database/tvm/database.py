"""The trial database as a MetaSchedule database: stock TVM tunes into it and applies its schedules."""

from __future__ import annotations

import json
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any

import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.database import PyDatabase, TuningRecord, Workload
from tvm.target import Target

from ...support.enums import Runtime
from ...support.errors import DatabaseError, UsageError, first_line
from ..exchange.unverified import ForeignTrials, stock_runtime
from ..queries.layers import Layers, release_files
from ..queries.ranked_schedules import RankedSchedule, RankedSchedules
from ..readonly import opened
from ..schema.records import SessionOutcome
from ..store import Store
from .modules import describe_workload, named_by_position, stored_module, workload_of
from .traces import ENTRY, is_trace, trace_values, translated


class Policy(str, Enum):
    """Which schedules a `ScheduleDatabase` returns."""

    VERIFIED = "verified"
    """Records only: measured, and the result compared with a reference."""
    MEASURED = "measured"
    """Times whose results nobody checked, too: what stock MetaSchedule measures, and needs to find again."""


@derived_object
class ScheduleDatabase(PyDatabase):
    """A `tvm.s_tir.meta_schedule.Database` over one device's trials in the database at ``url``.

    Pass it to `ms.tune_tir` or `ms.relax_integration.tune_relax`, or enter it (``with``) around
    `relax.transform.MetaScheduleApplyDatabase`. TVM's lookup ignores the target, so the device is chosen here, once.

    A workload is found by what it computes, whatever its blocks, buffers and functions are called, and its schedules
    are told in the names of the module that asks. The fastest is that of the lowest median. What the installed TVM is
    known not to apply (``wgtune db replay``) is left out; what fails to apply is passed over with a warning.

    Trials that stock TVM commits are kept as `unverified`, and failed ones as `run_error`, in a session of this process
    with its target: they never count as records, and ``wgtune tune`` measures and verifies such schedules itself.

    Args:
        url: as `Store.open` takes it; None is the user's own database. A new one is made.
        device: the key of the device whose trials these are, as in ``vulkan:llvmpipe`` or ``cuda:nvidia-h200``.
        policy: `Policy`. The default offers what `wgtune tune` has verified; tuning with stock TVM needs
            ``"measured"`` to find its own results.
        runtime: which way of measuring, as in ``"wgpu"`` or ``"tvm-cuda"``: times of two ways are never ranked
            together. None is the WGSL's (`Runtime.WGPU`) for ``"verified"``, and what stock TVM measures on such a
            device for ``"measured"``: `Runtime.TVM_CUDA`, `Runtime.TVM_METAL`, or `Runtime.TVM` elsewhere.
        releases: release files, or folders of them, that are read under the user's database.
        shipped: whether to read the releases that come with wgtune, too.

    Methods may be called from any thread. `close` ends the session; else the end of the process does.

    Raises:
        DatabaseError: as `Store.open`; a named release is not there.
        ValueError: there is no such policy or runtime.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        device: str,
        policy: Policy | str = Policy.VERIFIED,
        runtime: Runtime | str | None = None,
        releases: Sequence[Path] = (),
        shipped: bool = True,
    ) -> None:
        super().__init__()
        unverified = Policy(policy) is Policy.MEASURED
        if runtime is None:
            runtime = stock_runtime(device.partition(":")[0]) if unverified else Runtime.WGPU
        self._device, self._runtime = device, Runtime(runtime)
        with ExitStack() as stack:
            self._store = stack.enter_context(Store.open(url))
            readers = [stack.enter_context(opened(str(path))) for path in release_files(releases, shipped=shipped)]
            self._reader = Layers(self._store, readers)
            described = {info.key: info for info in self._reader.devices()}
            self._committed = ForeignTrials(self._store, device, "stock MetaSchedule", described.get(device))
            self._ending = weakref.finalize(self, _end, self._committed, stack.pop_all())
        self._ranked = RankedSchedules(self._reader, device, self._runtime, unverified=unverified)

    def close(self) -> None:
        """End this process's sessions and closes the database."""
        self._ending()

    def has_workload(self, mod: tvm.IRModule) -> bool:
        """Return whether the database knows the workload, measured on this device or not."""
        found = workload_of(mod)
        return found is not None and found in self._reader.workloads([found])

    def commit_workload(self, mod: tvm.IRModule) -> Workload:
        """Return ``mod`` as TVM's workload, and store it if it is new. Modules without an id are not stored."""
        if workload_of(mod) is not None and not self.has_workload(mod):
            self._store.add_workloads([describe_workload(mod)])
        return Workload(mod)

    def commit_tuning_record(self, record: TuningRecord) -> None:
        """Store what stock TVM measured: an `unverified` trial, or a `run_error` where there is no time.

        Raises:
            UsageError: the workload cannot be identified; its target is measured another way than was asked for.
            DatabaseError: the database fails.
        """
        module = record.workload.mod
        workload_id = workload_of(module)
        if workload_id is None:
            raise UsageError(
                "a workload is not one function of TensorIR that wgtune can identify", "keep it in a JSONDatabase"
            )
        kind = "no target" if record.target is None else str(record.target.kind.name)
        measured = stock_runtime(kind)
        if measured is not self._runtime:
            # TVM makes a RuntimeError of whatever is raised here, of which the message alone is left.
            raise UsageError(
                f"times for {kind} are of the runtime {measured.value}, and this database was opened for "
                f'{self._runtime.value}: open it with policy="measured", runtime="{measured.value}"'
            )
        trace = translated(trace_values(record.trace), module, named_by_position(module)).trace
        self._committed.add(
            describe_workload(module),
            json.dumps(trace_values(trace), separators=(",", ":")),
            [float(second) for second in record.run_secs or ()],
            None if record.target is None else json.loads(str(record.target)),
            self._runtime,
        )

    def get_top_k(self, workload: Workload, top_k: int) -> list[TuningRecord]:
        """Return the ``top_k`` fastest schedules that the policy includes, in the names of ``workload``."""
        found = workload_of(workload.mod)
        return [] if found is None else list(islice(self._records(found, workload), max(0, top_k)))

    def get_all_tuning_records(self) -> list[TuningRecord]:
        """Return the records of every workload that the installed TVM stored, in canonical names."""
        infos = self._reader.workloads(self._ranked.workloads())
        modules = {key: module for key in sorted(infos) if (module := stored_module(infos[key])) is not None}
        return [record for key, module in modules.items() for record in self._records(key, Workload(module))]

    def __len__(self) -> int:
        """Return the number of schedules of all workloads."""
        return len(self._ranked)

    def _records(self, workload_id: str, asked: Workload) -> Iterator[TuningRecord]:
        arguments = ArgInfo.from_prim_func(asked.mod[ENTRY])
        for ranked in self._ranked.of(workload_id):
            try:
                record = _record(ranked, asked, arguments)
            except Exception as error:  # whatever TVM raises over a trace of another version, or anybody's
                line = first_line(error)
                warnings.warn(
                    f"a schedule of {self._device} is passed over: {line} (`wgtune db replay` finds all such)",
                    stacklevel=2,
                )
                continue
            yield record


def _record(ranked: RankedSchedule, asked: Workload, arguments: list[ArgInfo]) -> TuningRecord:
    """Return ``ranked`` in the names of ``asked``; raises ValueError or TVM's errors where it does not apply."""
    trace = json.loads(ranked.trace)
    if not is_trace(trace):
        raise ValueError("it is not made of instructions and decisions")
    schedule = translated(trace, named_by_position(asked.mod), asked.mod)
    return TuningRecord(schedule.trace, asked, list(ranked.samples_s), readable_target(ranked.target), arguments)


def readable_target(values: dict[str, Any] | None) -> Target | None:
    """TVM's target that ``values`` describe; None where there are none, or the installed TVM knows no such target."""
    try:
        return None if values is None else Target(values)
    except Exception:  # of another version, or of a kind that this TVM was built without
        return None


def _end(committed: ForeignTrials, resources: ExitStack) -> None:
    """End the sessions and frees ``resources``; the process may be ending, too."""
    try:
        committed.end(SessionOutcome.COMPLETED)
    except DatabaseError as error:
        warnings.warn(f"a session stays open: {error.message}", stacklevel=2)
    finally:
        resources.close()
