"""Transfer: schedules from the most similar devices for a device that has none, always labelled as such.

From near to far: this device; the same model behind another backend or browser; the same architecture; the same
vendor; any other. Another device's schedule was neither measured nor verified here: its user emits it again, and counts
it as borrowed. GPUs and CPUs that emulate a GPU never lend to each other, because speed on one does not predict speed
on the other.

Times of different devices are not comparable. A schedule is ranked by its speed-up over the baseline of the device that
measured it, or by the geometric mean of several devices of one level (which ranks ratios alike whatever the reference:
Fleming and Wallace, CACM 29(3), 1986).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...support.enums import Match
from ..device_identity import Aliases, Identity, normalized, resolve, shipped_aliases
from ..reader import Reader
from ..schema.records import DeviceInfo, Record, Runtime

_WGSL = (Runtime.WGPU, Runtime.BROWSER)
"""Runtimes of the same programs: what one measured, the other can run."""


@dataclass(frozen=True)
class Found:
    """A record for a kernel, and how similar its device is.

    ``device`` measured it; `Record.latency_s` is a time there. ``speedup`` is over that device's own baseline, as the
    geometric mean over the ``devices`` of this level that measured the schedule; None where none has a baseline.
    """

    record: Record
    match: Match
    device: DeviceInfo
    speedup: float | None = None
    devices: int = 1


Fits = Callable[[Mapping[str, Any]], bool]
"""Receives a record's ``needs`` and returns whether the record may be used."""


def lookup(
    store: Reader,
    device: DeviceInfo,
    workload_ids: Collection[str],
    runtime: Runtime = Runtime.WGPU,
    *,
    fits: Fits | None = None,
    widest: Match = Match.PORTABLE,
) -> dict[str, Found]:
    """Return the best record for each workload from the nearest level that has one, up to ``widest``.

    Stale records are passed over. Workloads without a fitting record are left out.

    Raises:
        UsageError: aliases lead in a circle.
    """
    own = store.best(device.key, workload_ids, runtime, fits=fits)
    found = {key: Found(record, Match.EXACT, device) for key, record in own.items()}
    missing = [key for key in workload_ids if key not in found]
    for _, ranked in _levels(store, device, missing, runtime, fits, widest):
        for key, choices in ranked.items():
            found.setdefault(key, choices[0])
    return found


def related_schedules(
    store: Reader,
    device: DeviceInfo,
    workload_ids: Collection[str],
    runtime: Runtime = Runtime.WGPU,
    *,
    fits: Fits | None = None,
    widest: Match = Match.PORTABLE,
    top: int = 3,
) -> dict[str, list[Found]]:
    """Return up to ``top`` schedules of other devices for each workload, the nearest level's first, no schedule twice.

    Raises:
        UsageError: aliases lead in a circle.
    """
    found: dict[str, list[Found]] = {key: [] for key in workload_ids}
    for _, ranked in _levels(store, device, workload_ids, runtime, fits, widest, top):
        for key, choices in ranked.items():
            known = {one.record.trace for one in found[key]}
            found[key] += [one for one in choices if one.record.trace not in known]
    return {key: choices[:top] for key, choices in found.items() if choices}


def matches(store: Reader, device: DeviceInfo, known: Collection[DeviceInfo] | None = None) -> dict[str, Match]:
    """Return how near each other device of the database is, by key; those that cannot lend to ``device`` are left out.

    Raises:
        UsageError: aliases lead in a circle.
    """
    aliases = Aliases([*store.aliases(), *shipped_aliases()])
    identity = resolve(device, aliases)
    return {
        other.key: _match(device, identity, other, resolve(other, aliases))
        for other in (store.devices() if known is None else known)
        if other.key != device.key and other.software == device.software
    }


def _match(device: DeviceInfo, identity: Identity, other: DeviceInfo, its: Identity) -> Match:
    if identity.same_model(its):
        # Chips of one architecture share a family's name: only one chip is one model.
        chips = {normalized(info.architecture) for info in (device, other)} - {identity.architecture, ""}
        if any(c.isdigit() for c in identity.model) or device.software or len(chips) < 2:
            return Match.MODEL
    if identity.same_architecture(its):
        return Match.ARCHITECTURE
    return Match.VENDOR if identity.same_vendor(its) else Match.PORTABLE


def _levels(
    store: Reader,
    device: DeviceInfo,
    workload_ids: Collection[str],
    runtime: Runtime,
    fits: Fits | None,
    widest: Match,
    enough: int = 1,
) -> Iterator[tuple[Match, dict[str, list[Found]]]]:
    """The ranking of each level that lends anything, for the workloads that have not had ``enough`` schedules yet."""
    if not workload_ids or widest is Match.EXACT:
        return
    known = {info.key: info for info in store.devices()}
    near = matches(store, device, known.values())
    runtimes = _WGSL if runtime in _WGSL else (runtime,)
    counts = dict.fromkeys(workload_ids, 0)
    for match in widest.steps[1:]:
        lenders = [(known[key], way) for key, level in near.items() if level is match for way in runtimes]
        if match is Match.MODEL:
            lenders += [(device, way) for way in runtimes if way is not runtime]
        wanted = [key for key, count in counts.items() if count < enough]
        if not lenders or not wanted:
            continue
        ranked = _ranked(store, match, lenders, wanted, fits)
        for key, choices in ranked.items():
            counts[key] += len(choices)
        if ranked:
            yield match, ranked


def _ranked(
    store: Reader,
    match: Match,
    lenders: Sequence[tuple[DeviceInfo, Runtime]],
    workload_ids: Collection[str],
    fits: Fits | None,
) -> dict[str, list[Found]]:
    """Return the best of each lender, the one of largest speed-up over all of them first."""
    bests: dict[tuple[str, Runtime], dict[str, Record]] = {}
    baselines: dict[tuple[str, Runtime], dict[str, Record]] = {}
    for info, runtime in lenders:
        best = _best(store, info.key, workload_ids, runtime, fits)
        if best:
            bests[info.key, runtime] = best
            baselines[info.key, runtime] = store.baselines(info.key, list(best), runtime)
    times = _times(store, bests)
    devices = {info.key: info for info, _ in lenders}
    found: dict[str, dict[str, Found]] = {}
    for (key, _), records in bests.items():
        for workload_id, record in records.items():
            ratios = [
                base.latency_s / seconds
                for lender, base in ((lender, known.get(workload_id)) for lender, known in baselines.items())
                if base is not None and (seconds := times.get((*lender, workload_id, record.trace)))
            ]
            speedup = math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if ratios and min(ratios) > 0 else None
            one = Found(record, match, devices[key], speedup, max(1, len(ratios)))
            found.setdefault(workload_id, {}).setdefault(record.trace, one)
    return {key: sorted(choices.values(), key=_order) for key, choices in found.items()}


def _order(found: Found) -> tuple[bool, float, int, str, str]:
    """Return a sort key: largest speed-up first, then most devices, then an order on which all copies agree."""
    return (
        found.speedup is None,
        -(found.speedup or 0.0),
        -found.devices,
        found.device.key,
        found.record.program_digest,
    )


def _best(
    store: Reader, device_key: str, workload_ids: Collection[str], runtime: Runtime, fits: Fits | None
) -> dict[str, Record]:
    """As `Reader.best` with ``fits``, but asked again only for those whose best does not fit: that is a query each."""
    best = store.best(device_key, workload_ids, runtime)
    if fits is None:
        return best
    unfit = [key for key, record in best.items() if not fits(record.needs)]
    others = store.best(device_key, unfit, runtime, fits=fits) if unfit else {}
    return {key: record for key, record in best.items() if key not in unfit} | others


def _times(
    store: Reader, bests: Mapping[tuple[str, Runtime], Mapping[str, Record]]
) -> dict[tuple[str, Runtime, str, str], float]:
    """Seconds of every lender's best schedules on every lender that measured them."""
    times = {
        (*lender, key, record.trace): record.latency_s
        for lender, records in bests.items()
        for key, record in records.items()
    }
    schedules: dict[str, set[str]] = {}
    for records in bests.values():
        for key, record in records.items():
            schedules.setdefault(key, set()).add(record.trace)
    contested = {key: traces for key, traces in schedules.items() if len(traces) > 1}
    if contested:
        for runtime in {runtime for _, runtime in bests}:
            keys = [key for key, way in bests if way is runtime]
            for (key, workload_id, trace), seconds in store.times(keys, contested, runtime).items():
                times.setdefault((key, runtime, workload_id, trace), seconds)
    return times
