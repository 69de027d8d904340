"""Chooses each kernel's program: the device's best record, else another device's schedule, else the baseline.

Among the device's records within noise of the fastest the simplest is taken: fewest dispatches, then least time until
the first picture, compilation included.

Where the code generator has changed since a record was made, its schedule becomes another program than was verified.
The schedule is used all the same, and counts as borrowed from the device itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...database.queries.near_ties import Measured, near_ties
from ...database.queries.transfer_lookup import Found, lookup, related_schedules
from ...database.reader import Reader
from ...database.schema.records import DeviceInfo, Record, TrialKind
from ...devices.limits import TIERS, Tier
from ...devices.program import Program
from ...devices.quirks import NO_QUIRKS, Quirks, combined, known_quirks
from ...devices.wgsl_loops import may_exceed
from ...support.enums import Match, TrialState
from ...support.errors import BundleError, WgtuneError
from ...tuner.ir import Capture, Kernel
from ...tuner.picture_time import first_picture_s
from ..format.manifest import BorrowedInfo


@dataclass(frozen=True)
class ProgramChoice:
    """The program of a kernel.

    ``record`` is the device's own record that verified it, None without one. ``borrowed`` is the record whose schedule
    it runs without having been verified so: another device's, or (`Match.EXACT`) the device's own of another program.
    """

    program: Program
    record: Record | None
    borrowed: Found | None = None

    @property
    def own(self) -> Record | None:
        """The device's own record of the schedule, whether or not it verified this very program."""
        found = self.borrowed
        return found.record if found is not None and not found.match.borrowed else self.record


def choose_programs(
    capture: Capture,
    tier: Tier,
    store: Reader | None,
    device: DeviceInfo | None,
    progress: Callable[[int, int], None],
    warn: Callable[[str], None],
    borrow: Match = Match.PORTABLE,
    steps: int = 20,
) -> dict[str, ProgramChoice]:
    """Choose the program of every kernel that the capture calls, by kernel id.

    A kernel without a record of the device takes the schedule of the nearest device that has one. A schedule whose
    program was not verified on the device is used unless that program is known to fail there, or a quirk of the
    device's driver may end its loops too soon.

    Args:
        capture: the stages and their kernels.
        tier: the limits that every program must keep.
        store: the database, None for baselines only.
        device: the device whose records are used, None for baselines only.
        progress: receives the number of kernels done, and of all.
        warn: receives a sentence for each record that cannot be used, and one about all those of other programs.
        borrow: the farthest device whose schedules are used.
        steps: inference steps of a picture, which weigh a kernel's time against the time of compiling it.

    Raises:
        BundleError: a kernel does not become WebGPU within ``tier``; the hint names a tier that suffices.
    """
    ids = list(dict.fromkeys(call.kernel for stage in capture.stages.values() for call in stage.calls))
    quirks = _quirks(store, device)
    nearest = lookup(store, device, ids, fits=tier.fits, widest=borrow) if store is not None and device else {}
    equals = _equals(capture, store, nearest, tier, steps)
    choices: dict[str, ProgramChoice] = {}
    for done, kernel_id in enumerate(ids):
        progress(done, len(ids))
        kernel, found = capture.kernels[kernel_id], nearest.get(kernel_id)
        faults = _faults(store, device, kernel_id)
        choice = None
        if store is not None and found is not None and not found.match.borrowed:
            choice = _from_records(kernel, found, equals[kernel_id], store, tier, faults, quirks, warn)
            if choice is None and device is not None:
                relatives = related_schedules(store, device, [kernel_id], fits=tier.fits, widest=borrow, top=1)
                found = next(iter(relatives.get(kernel_id, ())), None)
        if choice is None and found is not None:
            choice = _from_relative(kernel, found, tier, faults, quirks, warn)
        choices[kernel_id] = choice or ProgramChoice(_baseline(kernel, tier, faults, device, quirks), None)
    progress(len(ids), len(ids))
    _tell_outdated(capture, choices, device, warn)
    return choices


def _tell_outdated(
    capture: Capture, choices: Mapping[str, ProgramChoice], device: DeviceInfo | None, warn: Callable[[str], None]
) -> None:
    """Warn once of all kernels whose schedules became another program than the device verified."""
    count = sum(1 for choice in choices.values() if choice.own is not choice.record)
    if count and device is not None:
        kernels = "1 kernel runs a schedule" if count == 1 else f"{count} kernels run schedules"
        warn(
            f"{kernels} that {device.key} verified as another program than wgtune makes of it now: not verified by "
            f"today's code generator (`wgtune tune --model {capture.model} --device {device.key} --trials 0` measures "
            "such schedules again, in a few seconds each)"
        )


def _quirks(store: Reader | None, device: DeviceInfo | None) -> Quirks:
    """Return the quirks of the device under the driver of its last session; none without a device."""
    if device is None:
        return NO_QUIRKS
    last = store.sessions(device_key=device.key, limit=1) if store is not None else []
    driver = last[0].info.driver if last else ""
    return combined(known_quirks(device.backend, device.model, driver))


def _equals(
    capture: Capture, store: Reader | None, nearest: Mapping[str, Found], tier: Tier, steps: int
) -> dict[str, list[Record]]:
    """Return by kernel the device's records within noise of its best one, the simplest first."""
    if store is None:
        return {}
    calls = _calls(capture, steps)

    def simplicity(kernel_id: str, measured: Measured) -> tuple[int, float]:
        return measured.launches, first_picture_s(calls[kernel_id], measured.latency_s, measured.compile_s)

    own = {kernel_id: found.record for kernel_id, found in nearest.items() if not found.match.borrowed}
    return near_ties(store, own, simplicity, fits=tier.fits)


def _from_records(
    kernel: Kernel,
    best: Found,
    records: Sequence[Record],
    store: Reader,
    tier: Tier,
    faults: set[str],
    quirks: Quirks,
    warn: Callable[[str], None],
) -> ProgramChoice | None:
    """Return the program of the first of ``records`` that verified it; else of the first one that may be used."""
    unverified = None
    for record in records:
        found = replace(best, record=record)
        choice = _from_record(kernel, found, store, tier, faults, quirks, warn)
        if choice is not None and choice.record is not None:
            return choice
        unverified = unverified or choice
    return unverified


def _from_record(
    kernel: Kernel,
    found: Found,
    store: Reader,
    tier: Tier,
    faults: set[str],
    quirks: Quirks,
    warn: Callable[[str], None],
) -> ProgramChoice | None:
    """Return the device's own record as a program; None where it does not emit, or is another one that fails here."""
    from ...tuner.programs.cache import replayed_program

    record = found.record
    try:
        program = replayed_program(kernel, record.trace, tier)
    except WgtuneError as error:
        origin = store.origin(record)
        warn(f"{kernel.name}: {origin} no longer becomes WebGPU: {error.message} (`{origin.command}` shows it)")
        return None
    if program.digest == record.program_digest:
        return ProgramChoice(program, record)
    if program.digest in faults or may_exceed(program, quirks.max_thread_iterations):
        return None
    return ProgramChoice(program, None, found)


def _from_relative(
    kernel: Kernel,
    found: Found,
    tier: Tier,
    faults: set[str],
    quirks: Quirks,
    warn: Callable[[str], None],
) -> ProgramChoice | None:
    """Return another device's schedule as a program; None for a baseline, one that does not emit, or fails here."""
    from ...tuner.programs.cache import replayed_program

    if found.record.kind is TrialKind.BASELINE:
        return None
    try:
        program = replayed_program(kernel, found.record.trace, tier)
    except WgtuneError as error:
        warn(f"{kernel.name}: the schedule of {found.device.key} does not become WebGPU here: {error.message}")
        return None
    if program.digest in faults or may_exceed(program, quirks.max_thread_iterations):
        return None
    return ProgramChoice(program, None, found)


def _faults(store: Reader | None, device: DeviceInfo | None, kernel_id: str) -> set[str]:
    """Return the digests of the programs that are known to fail on the device."""
    if store is None or device is None:
        return set()
    # A lost device may have had a cause outside the program; the other faults are the program's.
    return {
        t.program_digest
        for t in store.tried(device.key, kernel_id)
        if t.state.fault and t.state is not TrialState.DEVICE_LOST
    }


def _baseline(kernel: Kernel, tier: Tier, faults: set[str], device: DeviceInfo | None, quirks: Quirks) -> Program:
    """Return the first untuned program that becomes WebGPU within ``tier`` and is not known to fail on the device."""
    reason, failed = "no schedule applies to it", False
    for program in _baselines(kernel, tier, quirks):
        if isinstance(program, WgtuneError):
            reason = program.message
        elif program.digest in faults:
            failed = True
        else:
            return program
    if failed and device is not None:
        raise BundleError(
            f"the kernel {kernel.name} has no program that works on {device.key}: every untuned schedule failed there",
            f"look for another with `wgtune tune --kernels {kernel.name}`, or build for another device",
        )
    raise BundleError(
        f"the kernel {kernel.name} does not become WebGPU within the limits of tier {tier.name!r}: {reason}",
        _way_out(kernel, tier),
    )


def _baselines(kernel: Kernel, tier: Tier, quirks: Quirks = NO_QUIRKS) -> Iterator[Program | WgtuneError]:
    from ...tuner.programs.cache import untuned_programs  # it loads TVM

    return untuned_programs(kernel, tier, quirks)


def _way_out(kernel: Kernel, tier: Tier) -> str:
    for other in TIERS.values():
        if other.name != tier.name and any(isinstance(p, Program) for p in _baselines(kernel, other)):
            return f"--tier {other.name} would do"
    return "no tier would do; a smaller image or batch may"


def time_shares(capture: Capture, choices: Mapping[str, ProgramChoice], steps: int) -> dict[str, float] | None:
    """Estimate the share of an image's time that each kernel takes whose program has no record; None without records.

    A roofline is made of the best FLOP and byte rates of the measured kernels. The estimate is a kernel's roofline time
    multiplied by the factor by which the measured kernels together exceed theirs. A schedule that the device measured
    as another program is taken to be as fast as that was.
    """
    calls = _calls(capture, steps)
    measured = {k: c.own.latency_s for k, c in choices.items() if c.own is not None and c.own.latency_s > 0}
    if not measured:
        return None
    flop_rate = max(capture.kernels[k].flops / s for k, s in measured.items())
    byte_rate = max(capture.kernels[k].nbytes / s for k, s in measured.items())

    def roofline(kernel_id: str) -> float:
        kernel = capture.kernels[kernel_id]
        return max(kernel.flops / flop_rate if flop_rate else 0.0, kernel.nbytes / byte_rate)

    known = sum(calls[k] * s for k, s in measured.items())
    shortfall = known / sum(calls[k] * roofline(k) for k in measured)
    unknown = {k: shortfall * calls[k] * roofline(k) for k in choices if k not in measured}
    whole = known + sum(unknown.values())
    outdated = {k: calls[k] * s for k, s in measured.items() if choices[k].record is None}
    return {kernel_id: seconds / whole for kernel_id, seconds in (unknown | outdated).items()}


def untuned_share(capture: Capture, choices: Mapping[str, ProgramChoice], steps: int) -> float | None:
    """Estimate the share of an image's time that untuned baselines without a record take (`time_shares`)."""
    shares = time_shares(capture, choices, steps)
    return None if shares is None else sum(share for k, share in shares.items() if choices[k].borrowed is None)


def borrowed_kernels(capture: Capture, choices: Mapping[str, ProgramChoice], steps: int) -> tuple[BorrowedInfo, ...]:
    """Count the kernels per device whose schedules they borrow, with their estimated share of an image's time.

    The device itself comes first, with schedules that it verified as other programs.
    """
    shares = time_shares(capture, choices, steps)
    groups: dict[tuple[Match, str], list[str]] = {}
    for kernel_id, choice in choices.items():
        if (found := choice.borrowed) is not None:
            groups.setdefault((found.match, found.device.key), []).append(kernel_id)
    order = list(Match)
    return tuple(
        BorrowedInfo(match.value, key, len(ids), None if shares is None else sum(shares[k] for k in ids))
        for (match, key), ids in sorted(groups.items(), key=lambda group: (order.index(group[0][0]), group[0][1]))
    )


def measured_seconds(capture: Capture, choices: Mapping[str, ProgramChoice], steps: int) -> float:
    """Return the sum of the chosen records' times in seconds for one batch of images."""
    return sum(
        count * record.latency_s
        for kernel_id, count in _calls(capture, steps).items()
        if (record := choices[kernel_id].record) is not None
    )


def _calls(capture: Capture, steps: int) -> Mapping[str, int]:
    """Return the launches of each kernel in a batch of images, over all stages."""
    calls = Counter[str]()
    for (_, kernel_id), count in capture.calls_per_image(steps).items():
        calls[kernel_id] += count
    return calls


def stage_seconds(capture: Capture, choices: Mapping[str, ProgramChoice]) -> dict[str, float]:
    """Return the sum of the chosen records' times in seconds for one run of each stage whose kernels all have one."""
    sums: dict[str, float] = {}
    for stage in capture.stages.values():
        records = [(count, choices[kernel].record) for kernel, count in stage.calls_per_kernel().items()]
        if all(record is not None for _, record in records):
            sums[stage.name] = sum(count * record.latency_s for count, record in records if record is not None)
    return sums


def count_improved(choices: Mapping[str, ProgramChoice]) -> int:
    """Count the kernels whose own record is of a schedule found by search, not of a baseline."""
    return sum(1 for c in choices.values() if c.record is not None and c.record.kind is not TrialKind.BASELINE)
