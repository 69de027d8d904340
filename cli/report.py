"""`wgtune report …`: reports from the database; stability, fidelity and pytorch also measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..database.queries.layers import open_layers
from ..database.queries.remeasured import REASON, last_comparison
from ..database.queries.shared_schedules import REASON as FIDELITY_REASON
from ..database.store import Store
from ..devices.discovery.discovery import discover
from ..devices.worker.factory import open_worker
from ..reports.coverage import coverage
from ..reports.fidelity import fidelity
from ..reports.html.fidelity_page import write_fidelity_page
from ..reports.html.page import write_page
from ..reports.html.stability_page import write_stability_page
from ..reports.latency import latency
from ..reports.launch_counts import model_launches
from ..reports.pytorch import beside_pytorch
from ..reports.selection import select_device, select_model
from ..reports.stability import check_against, heaviest, stability
from ..reports.tables import Report, print_report
from ..support.console import note, progress, stdout, warn
from ..support.errors import CaptureError, DeviceError, UsageError
from .browser import BROWSER, CertificateOption, HostOption, KeyOption, PageOptions, PortOption, serve_one_browser
from .options import (
    DbOption,
    HtmlOption,
    JsonOption,
    KnownDeviceOption,
    KnownModelOption,
    LimitOption,
    ReleasesOption,
    ShippedOption,
    StageOption,
    StepsOption,
)

if TYPE_CHECKING:
    from ..database.reader import Reader
    from ..devices.device import Device
    from ..support.enums import Runtime

# What measures needs TVM or PyTorch, which take seconds to import: these functions import it themselves.


@dataclass(frozen=True)
class _Choice:
    """Options of the reports that only read the database."""

    model: str | None
    device: str | None
    steps: int
    limit: int | None
    html: Path | None
    db: str | None
    releases: list[Path] | None
    shipped: bool
    json: bool


def report_coverage(
    model: KnownModelOption = None,
    device: KnownDeviceOption = None,
    steps: StepsOption = 20,
    limit: LimitOption = None,
    html: HtmlOption = None,
    db: DbOption = None,
    releases: ReleasesOption = None,
    shipped: ShippedOption = True,
    json: JsonOption = False,
) -> None:
    """Show which kernels of a model are tuned on a device, and their share of an image's time."""
    _print(coverage, _Choice(model, device, steps, limit, html, db, releases, shipped, json))


def report_latency(
    model: KnownModelOption = None,
    device: KnownDeviceOption = None,
    steps: StepsOption = 20,
    limit: LimitOption = None,
    html: HtmlOption = None,
    db: DbOption = None,
    releases: ReleasesOption = None,
    shipped: ShippedOption = True,
    json: JsonOption = False,
) -> None:
    """Compare baseline and best record: time per kernel, per stage and per image."""
    _print(latency, _Choice(model, device, steps, limit, html, db, releases, shipped, json))


def _print(make: Callable[[Reader, str, str, int], Report], choice: _Choice) -> None:
    """Print the report that ``make`` returns; write it as a page, too, where one is asked for."""
    with open_layers(choice.db, releases=choice.releases or (), shipped=choice.shipped, warn=note) as store:
        model = select_model(store, choice.model)
        key = select_device(store, choice.device, capture_key=model.capture_key).key
        made = make(store, model.capture_key, key, choice.steps)
        if choice.html is not None:
            write_page(choice.html, store, model.capture_key, key, choice.steps)
            note(f"wrote {choice.html}")
    print_report(made, json=choice.json, console=stdout(), limit=choice.limit)


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
    from ..tuner.remeasure.stability import StabilityRequest, measure_again

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
            from ..tuner.remeasure.cross_device import FidelityRequest, measure_elsewhere

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


class ModeName(str, Enum):
    """How PyTorch runs a stage."""

    EAGER = "eager"
    COMPILE = "compile"


def report_pytorch(
    model: KnownModelOption = None,
    device: KnownDeviceOption = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="The model's folder, Hugging Face id or built-in name; by default the model's name in the database."
        ),
    ] = None,
    torch_device: Annotated[
        str | None, typer.Option(help="PyTorch device: cuda, mps or cpu; by default the fastest available.")
    ] = None,
    mode: Annotated[
        list[ModeName] | None, typer.Option(help="eager or compile; may be repeated; by default both.")
    ] = None,
    stage: StageOption = None,
    steps: StepsOption = 20,
    db: DbOption = None,
    releases: ReleasesOption = None,
    shipped: ShippedOption = True,
    json: JsonOption = False,
) -> None:
    """Time the model's stages in PyTorch (eager, torch.compile, TF32 off and on), beside the records of a device."""
    with open_layers(db, releases=releases or (), shipped=shipped, warn=note) as store:
        chosen = select_model(store, model)
        key = select_device(store, device, capture_key=chosen.capture_key).key
        options = model_launches(store, chosen.capture_key, steps).options
        with progress("Timing PyTorch") as report:
            report("loading", 0.0)
            from ..tuner.capture.sources import resolve_model
            from ..tuner.remeasure.pytorch_baseline import available_modes, default_device, device_name, time_stages

            where = torch_device or default_device()
            name = device_name(where)
            compiled = [one is ModeName.COMPILE for one in mode or list(ModeName)]
            modes = available_modes(where, sorted(set(compiled)))
            try:
                resolved = resolve_model(source or chosen.name)
            except CaptureError as error:
                hint = error.hint if source else "say where the model is: --source FOLDER"
                raise UsageError(error.message, hint) from error
            times, interrupted = [], False
            try:
                for one in time_stages(resolved, options, where, modes, report, stage):
                    times.append(one)
            except KeyboardInterrupt:
                interrupted = True
        made = beside_pytorch(store, chosen.capture_key, key, steps, times, name, version("torch"))
    print_report(made, json=json, console=stdout())
    if interrupted:
        raise typer.Exit(130)
