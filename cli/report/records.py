"""`wgtune report coverage` and `latency`: what the records say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...database.queries.layers import open_layers
from ...reports.coverage import coverage
from ...reports.html.page import write_page
from ...reports.latency import latency
from ...reports.selection import select_device, select_model
from ...reports.tables import Report, print_report
from ...support.console import note, stdout
from ..options import (
    DbOption,
    HtmlOption,
    JsonOption,
    KnownDeviceOption,
    KnownModelOption,
    LimitOption,
    ReleasesOption,
    ShippedOption,
    StepsOption,
)

if TYPE_CHECKING:
    from ...database.reader import Reader


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
