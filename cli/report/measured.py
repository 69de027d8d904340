"""`wgtune report stability` and `fidelity`: schedules measured again, here or on another device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ...database.queries.remeasured import REASON, last_comparison
from ...database.queries.shared_schedules import REASON as FIDELITY_REASON
from ...database.store import Store
from ...devices.discovery.discovery import discover
from ...devices.worker.factory import open_worker
from ...reports.fidelity import fidelity
from ...reports.html.fidelity_page import write_fidelity_page
from ...reports.html.stability_page import write_stability_page
from ...reports.selection import select_device, select_model
from ...reports.stability import check_against, heaviest, stability
from ...reports.tables import print_report
from ...support.console import note, progress, stdout, warn
from ...support.errors import DeviceError, UsageError
from ..browser import BROWSER, CertificateOption, HostOption, KeyOption, PageOptions, PortOption, serve_one_browser
from ..options import (
    DbOption,
    HtmlOption,
    JsonOption,
    KnownDeviceOption,
    KnownModelOption,
    LimitOption,
    StepsOption,
)

if TYPE_CHECKING:
    from ...database.reader import Reader
    from ...devices.device import Device
    from ...support.enums import Runtime

# What measures needs TVM or PyTorch, which take seconds to import: these functions import it themselves.


def report_stability(
    model: KnownModelOption = None,
    device: KnownDeviceOption = None,
    top: Annotated[int, typer.Option(min=2, help="Number of fastest schedules of each kernel.")] = 10,
    kernels: Annotated[int, typer.Option(min=1, help="Number of slowest kernels to measure.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds; each runs in its own process.")] = 24,
    against: Annotated[
        int | None,
        typer.Option(min=1, help="Compare with this session's repeated measurements instead of the records."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure now, or show the last measurements.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order in which schedules are measured.")] = 0,
    steps: StepsOption = 20,
    limit: LimitOption = None,
    html: HtmlOption = None,
    db: DbOption = None,
    json: JsonOption = False,
) -> None:
    """Measure the fastest schedules again in rounds, and compare their times and order. Changes no record."""
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
    from ...tuner.remeasure.stability import StabilityRequest, measure_again

    chosen = heaviest(store, capture_key, device.key, steps, kernels, device.runtime)
    with progress("Measuring again") as report:
        return measure_again(StabilityRequest(device, capture_key, chosen, top, rounds, seed), store, report)


def device_here(key: str) -> Device:
    """Return the device with this key; raise DeviceError if this machine does not have it."""
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


def report_fidelity(
    context: typer.Context,
    against: Annotated[
        str,
        typer.Option("--against", help="The other device: a key in the database, or with --measure also `browser`."),
    ],
    model: KnownModelOption = None,
    device: KnownDeviceOption = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="First measure the fastest schedules on the other device.")
    ] = False,
    top: Annotated[int, typer.Option(min=2, help="With --measure: number of fastest schedules of each kernel.")] = 10,
    kernels: Annotated[int, typer.Option(min=1, help="With --measure: number of slowest kernels.")] = 10,
    rounds: Annotated[
        int, typer.Option(min=1, help="With --measure: number of rounds; each runs in its own process.")
    ] = 6,
    label: Annotated[
        str, typer.Option(help="Label of a setting, such as a browser's flags; times of each label are kept apart.")
    ] = "",
    steps: StepsOption = 20,
    host: HostOption = "127.0.0.1",
    port: PortOption = None,
    certificate: CertificateOption = None,
    key: KeyOption = None,
    limit: LimitOption = None,
    html: HtmlOption = None,
    db: DbOption = None,
    json: JsonOption = False,
) -> None:
    """Compare the same schedules on two devices or runtimes: does one predict the other?"""
    if against == BROWSER and not measure:
        raise UsageError("a browser is a device by its own key once it was measured", "add --measure, or name the key")
    with Store.open(db, create=False) as store:
        chosen = select_model(store, model)
        here_key = select_device(store, device or _tuned_last(store, chosen.capture_key)).key
        here = here_key, _runtime(store, here_key)
        if measure:
            from ...tuner.remeasure.cross_device import FidelityRequest, measure_elsewhere

            page = PageOptions(host, port, certificate, key)
            browser = context.with_resource(serve_one_browser(against, page))
            target = browser.device if browser is not None else device_here(against)
            ids = heaviest(store, chosen.capture_key, here_key, steps, kernels, here[1])
            request = FidelityRequest(here, target, chosen.capture_key, ids, top, rounds, label)
            with progress("Measuring") as report:
                measure_elsewhere(request, store, report, browser.opener if browser is not None else open_worker)
            there = target.key, target.runtime
        else:
            there_key = select_device(store, against).key
            there = there_key, _runtime(store, there_key)
        made = fidelity(store, here, there, label)
    if html is not None:
        write_fidelity_page(html, made)
        note(f"wrote {html}")
    print_report(made, json=json, console=stdout(), limit=limit)


def _tuned_last(store: Reader, capture_key: str) -> str | None:
    """Return the device of the last session on the model that was not itself a comparison."""
    kept = store.sessions(capture_key=capture_key)
    return next((one.info.device.key for one in kept if not one.info.reason.startswith(FIDELITY_REASON)), None)


def _runtime(store: Reader, key: str) -> Runtime:
    """Return the runtime of the last session on the device."""
    return store.sessions(device_key=key, limit=1)[0].info.runtime
