"""`wgtune report fidelity`. Imports inside keep `--help` fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..support.console import note, progress, stdout
from .browser import BROWSER, CertificateOption, HostOption, KeyOption, PortOption, lending
from .options import DbOption, HtmlOption, JsonOption, KnownDeviceOption, KnownModelOption, LimitOption, StepsOption
from .report_stability import device_here

if TYPE_CHECKING:
    from ..database.reader import Reader
    from ..support.enums import Runtime


def report_fidelity(
    context: typer.Context,
    against: Annotated[
        str, typer.Option("--against", help="The other device: a key in the database; with --measure `browser`, too.")
    ],
    model: KnownModelOption = None,
    device: KnownDeviceOption = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="First measure the device's fastest schedules on the other one.")
    ] = False,
    top: Annotated[int, typer.Option(min=2, help="With --measure: so many schedules of each kernel.")] = 10,
    kernels: Annotated[
        int, typer.Option(min=1, help="With --measure: the so many kernels that take most of an image's time.")
    ] = 10,
    rounds: Annotated[
        int, typer.Option(min=1, help="With --measure: each so many times, each time in a process of its own.")
    ] = 6,
    label: Annotated[
        str, typer.Option(help="What a key does not tell, such as a browser's flags: kept and compared apart.")
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
    """Do times on one device predict those on another? The same schedules, natively and in a browser, WGSL and CUDA."""
    from ..database.store import Store
    from ..devices.worker.factory import open_worker
    from ..reports.fidelity import fidelity
    from ..reports.html.fidelity_page import write_fidelity_page
    from ..reports.selection import select_device, select_model
    from ..reports.stability import heaviest
    from ..reports.tables import print_report
    from ..support.errors import UsageError

    if against == BROWSER and not measure:
        raise UsageError("a browser is a device by its own key once it was measured", "add --measure, or name the key")
    with Store.open(db, create=False) as store:
        chosen = select_model(store, model)
        here_key = select_device(store, device or _tuned_last(store, chosen.capture_key)).key
        here = here_key, _runtime(store, here_key)
        if measure:
            from ..tuner.remeasure.cross_device import FidelityRequest, measure_elsewhere

            lent = context.with_resource(lending([against], host, port, certificate, key))
            target = lent.device if lent is not None else device_here(against)
            ids = heaviest(store, chosen.capture_key, here_key, steps, kernels, here[1])
            request = FidelityRequest(here, target, chosen.capture_key, ids, top, rounds, label)
            with progress("Measuring") as report:
                measure_elsewhere(request, store, report, lent.opener if lent is not None else open_worker)
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
    """The device of the last session on the model that was not itself a comparison."""
    from ..database.queries.shared_schedules import REASON

    kept = store.sessions(capture_key=capture_key)
    return next((one.info.device.key for one in kept if not one.info.reason.startswith(REASON)), None)


def _runtime(store: Reader, key: str) -> Runtime:
    """The way to the device that was used last."""
    return store.sessions(device_key=key, limit=1)[0].info.runtime
