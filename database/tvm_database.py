"""The schedule database as MetaSchedule sees one: stock TVM tunes into it, and applies what is in it."""

from __future__ import annotations

import json
import math
import os
import platform
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from enum import Enum
from itertools import islice
from pathlib import Path

import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.database import PyDatabase, TuningRecord, Workload
from tvm.target import Target

from ..errors import DatabaseError, UsageError
from ..states import Runtime, TrialState
from .layers import Layers, release_files
from .offers import Offer, Offers
from .records import DeviceInfo, SessionInfo, SessionOutcome, TrialEnd, TrialKind, TrialStart
from .snapshots import opened
from .store import Store
from .tvm_modules import describe_workload, named_by_position, stored_module, workload_of
from .tvm_traces import ENTRY, is_trace, trace_values, translated

FAILED_S = 1e9
"""Seconds from which on MetaSchedule means that there is no time: it books 1e10 where a candidate did not run."""

_RUNTIMES = {"cuda": Runtime.TVM_CUDA, "metal": Runtime.TVM_METAL}


class Policy(str, Enum):
    """Which schedules a `ScheduleDatabase` offers."""

    VERIFIED = "verified"
    """Records only: measured, and the result compared with a reference."""
    MEASURED = "measured"
    """Times whose results nobody checked, too: what stock MetaSchedule measures, and needs to find again."""


def target_runtime(target: Target | None) -> Runtime:
    """The way of measuring that stock MetaSchedule's times for ``target`` are kept under.

    It measures through TVM's own runtimes, on ``vulkan`` and ``webgpu`` too: never the WGSL that a browser gets.
    """
    return Runtime.TVM if target is None else _RUNTIMES.get(str(target.kind.name), Runtime.TVM)


@derived_object
class ScheduleDatabase(PyDatabase):
    """A `tvm.s_tir.meta_schedule.Database` over one device's trials in the database at ``url``.

    Pass it to `ms.tune_tir` or `ms.relax_integration.tune_relax`, or enter it (``with``) around
    `relax.transform.MetaScheduleApplyDatabase`. TVM's lookup ignores the target, so the device is chosen here, once.

    A workload is found by what it computes, whatever its blocks, buffers and functions are called, and its schedules
    are told in the names of the module that asks. The fastest is that of the lowest median. What the installed TVM is
    known not to apply (``wgtune db replay``) is not offered; what fails to apply is passed over with a warning.

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
            runtime = _RUNTIMES.get(device.partition(":")[0], Runtime.TVM) if unverified else Runtime.WGPU
        self._device, self._runtime = device, Runtime(runtime)
        with ExitStack() as stack:
            self._store = stack.enter_context(Store.open(url))
            readers = [stack.enter_context(opened(str(path))) for path in release_files(releases, shipped=shipped)]
            self._reader = Layers(self._store, readers)
            self._sessions: dict[str, int] = {}
            self._ending = weakref.finalize(self, _end, self._store, self._sessions, stack.pop_all())
        self._offers = Offers(self._reader, device, self._runtime, unverified=unverified)

    def close(self) -> None:
        """Ends this process's sessions and closes the database."""
        self._ending()

    def has_workload(self, mod: tvm.IRModule) -> bool:
        """Whether the database knows the workload, measured on this device or not."""
        found = workload_of(mod)
        return found is not None and found in self._reader.workloads([found])

    def commit_workload(self, mod: tvm.IRModule) -> Workload:
        """``mod`` as a workload of TVM's, kept where it is new. What wgtune cannot identify is not kept."""
        if workload_of(mod) is not None and not self.has_workload(mod):
            self._store.add_workloads([describe_workload(mod)])
        return Workload(mod)

    def commit_tuning_record(self, record: TuningRecord) -> None:
        """Keeps what stock TVM measured: an `unverified` trial, or a `run_error` where there is no time.

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
        measured = target_runtime(record.target)
        if measured is not self._runtime:
            # TVM makes a RuntimeError of whatever is raised here, of which the message alone is left.
            raise UsageError(
                f"times for {record.target.kind.name} are of the runtime {measured.value}, and this database was "
                f'opened for {self._runtime.value}: open it with policy="measured", runtime="{measured.value}"'
            )
        self._store.add_workloads([describe_workload(module)])
        trace = translated(trace_values(record.trace), module, named_by_position(module)).trace
        start = TrialStart(
            session_id=self._session(record.target),
            workload_id=workload_id,
            kind=TrialKind.SEARCH,
            trace=json.dumps(trace_values(trace), separators=(",", ":")),
            program_digest="",
            needs={},
            launches=0,
            seed=0,
        )
        self._store.add_trial(start, trial_end([float(second) for second in record.run_secs or ()]))

    def get_top_k(self, workload: Workload, top_k: int) -> list[TuningRecord]:
        """The ``top_k`` fastest schedules that the policy offers, in the names of ``workload``."""
        found = workload_of(workload.mod)
        return [] if found is None else list(islice(self._records(found, workload), max(0, top_k)))

    def get_all_tuning_records(self) -> list[TuningRecord]:
        """Every offer of every workload that the installed TVM has written, named by position."""
        infos = self._reader.workloads(self._offers.workloads())
        modules = {key: module for key in sorted(infos) if (module := stored_module(infos[key])) is not None}
        return [record for key, module in modules.items() for record in self._records(key, Workload(module))]

    def __len__(self) -> int:
        """How many schedules are offered, of all workloads."""
        return len(self._offers)

    def _records(self, workload_id: str, asked: Workload) -> Iterator[TuningRecord]:
        arguments = ArgInfo.from_prim_func(asked.mod[ENTRY])
        for offer in self._offers.of(workload_id):
            try:
                record = _record(offer, asked, arguments)
            except Exception as error:  # whatever TVM raises over a trace of another version, or anybody's
                line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
                warnings.warn(
                    f"a schedule of {self._device} is passed over: {line} (`wgtune db replay` finds all such)",
                    stacklevel=2,
                )
                continue
            yield record

    def _session(self, target: Target | None) -> int:
        """This process's session of what is measured for ``target``."""
        text = "" if target is None else json.dumps(json.loads(str(target)), sort_keys=True)
        if text not in self._sessions:
            backend, _, model = self._device.partition(":")
            described = {info.key: info for info in self._reader.devices()}
            unknown = DeviceInfo(self._device, backend, "", "", model, software=backend in ("cpu", "llvm"))
            info = SessionInfo(
                device=described.get(self._device, unknown),
                runtime=self._runtime,
                driver="",
                adapter={},
                toolchain={"python": platform.python_version(), "apache-tvm": tvm.__version__},
                model="",
                capture_key="",
                tier="",
                budget={},
                seed=0,
                reason="stock MetaSchedule",
                host=platform.node(),
                pid=os.getpid(),
                target=text,
            )
            self._sessions[text] = self._store.begin_session(info)
        return self._sessions[text]


def trial_end(seconds: Sequence[float]) -> TrialEnd:
    """How a trial of stock MetaSchedule's ended, by the ``seconds`` that it booked."""
    if seconds and all(math.isfinite(second) and 0 <= second < FAILED_S for second in seconds):
        return TrialEnd(TrialState.UNVERIFIED, tuple(seconds), timer="meta_schedule")
    return TrialEnd(TrialState.RUN_ERROR, error="stock MetaSchedule booked no time: it did not build, or did not run")


def _record(offer: Offer, asked: Workload, arguments: list[ArgInfo]) -> TuningRecord:
    """``offer`` in the names of ``asked``; raises ValueError or TVM's errors where it does not apply."""
    trace = json.loads(offer.trace)
    if not is_trace(trace):
        raise ValueError("it is not made of instructions and decisions")
    schedule = translated(trace, named_by_position(asked.mod), asked.mod)
    target = None if offer.target is None else Target(offer.target)
    return TuningRecord(schedule.trace, asked, list(offer.samples_s), target, arguments)


def _end(store: Store, sessions: dict[str, int], resources: ExitStack) -> None:
    """Ends ``sessions`` and frees ``resources``, also when the process ends while an exception is under way."""
    try:
        for session in sessions.values():
            store.end_session(session, SessionOutcome.COMPLETED)
    except DatabaseError as error:
        warnings.warn(f"a session stays open: {error.message}", stacklevel=2)
    finally:
        resources.close()
