"""`wgtune report stability`: the one report that measures. Imports inside keep `--help` fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..support.console import note, progress, stdout, warn
from .options import DbOption, HtmlOption, JsonOption, KnownDeviceOption, KnownModelOption, LimitOption, StepsOption

if TYPE_CHECKING:
    from ..database.store import Store
    from ..devices.device import Device


def report_stability(
    model: KnownModelOption = None,
    device: KnownDeviceOption = None,
    top: Annotated[int, typer.Option(min=2, help="So many of each kernel's fastest schedules.")] = 10,
    kernels: Annotated[
        int, typer.Option(min=1, help="Only the so many kernels that take most of an image's time.")
    ] = 10,
    rounds: Annotated[
        int, typer.Option(min=1, help="Measure each so many times, each time in a process of its own.")
    ] = 24,
    against: Annotated[
        int | None,
        typer.Option(min=1, help="Compare with what this session measured again, instead of with the records."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure now, or show what was measured again last.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of the order in which schedules are measured.")] = 0,
    steps: StepsOption = 20,
    limit: LimitOption = None,
    html: HtmlOption = None,
    db: DbOption = None,
    json: JsonOption = False,
) -> None:
    """Measure the fastest schedules again, in rounds: do their times and their order hold? Tunes and ranks nothing."""
    from ..database.queries.remeasured import REASON, last_comparison
    from ..database.store import Store
    from ..reports.html.stability_page import write_stability_page
    from ..reports.selection import select_device, select_model
    from ..reports.stability import check_against, stability
    from ..reports.tables import print_report
    from ..support.errors import UsageError

    with Store.open(db, create=False) as store:
        chosen = select_model(store, model)
        key = select_device(store, device, capture_key=chosen.capture_key).key
        if against is not None:
            check_against(store, against)
        if measure:
            session = _measure_again(store, chosen.capture_key, device_here(key), top, kernels, rounds, seed, steps)
        else:
            found = last_comparison(store, key, chosen.capture_key, REASON)
            if found is None:
                raise UsageError(f"nothing was measured again on {key} yet", "wgtune report stability")
            session = found
        made = stability(store, session, against)
        earlier = last_comparison(store, key, chosen.capture_key, REASON, before=session) if against is None else None
    if html is not None:
        write_stability_page(html, made)
        note(f"wrote {html}")
    print_report(made, json=json, console=stdout(), limit=limit)
    if earlier is not None:
        note(f"session {earlier} measured again, too: --no-measure --against {earlier} compares with it")


def _measure_again(
    store: Store, capture_key: str, device: Device, top: int, kernels: int, rounds: int, seed: int, steps: int
) -> int:
    from ..reports.stability import heaviest
    from ..tuner.remeasure.stability import StabilityRequest, measure_again

    chosen = heaviest(store, capture_key, device.key, steps, kernels, device.runtime)
    with progress("Measuring again") as report:
        return measure_again(StabilityRequest(device, capture_key, chosen, top, rounds, seed), store, report)


def device_here(key: str) -> Device:
    """The device that a database calls ``key``; raises DeviceError where this machine does not have it."""
    from ..devices.discovery.discovery import discover
    from ..support.errors import DeviceError

    found = discover()
    for problem in found.problems:
        warn(problem)
    for device in found.devices:
        if device.key == key:
            return device
    raise DeviceError(
        f"{key} is not on this machine, so nothing can be measured again",
        "run this where it is, name another with --device, or see what was measured last with --no-measure",
    )
