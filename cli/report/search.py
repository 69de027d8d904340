"""`wgtune report search`: best time so far against trials, cold against warm."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from ...database.queries.layers import open_layers
from ...database.readonly import opened
from ...reports.html.search_page import write_search_page
from ...reports.launch_counts import model_launches
from ...reports.search import SHARE, search_report
from ...reports.selection import select_device, select_kernels, select_model
from ...reports.tables import print_report
from ...support.console import note, stdout
from ...support.enums import Runtime
from ..options import (
    DbOption,
    HtmlOption,
    JsonOption,
    KernelsOption,
    KnownDeviceOption,
    KnownModelOption,
    LimitOption,
    ReleasesOption,
    ShippedOption,
    StageOption,
)


def report_search(
    model: KnownModelOption = None,
    device: KnownDeviceOption = None,
    stage: StageOption = None,
    kernels: KernelsOption = None,
    share: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Part of the best known speed up to which trials are counted.")
    ] = SHARE,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="URL", help="Another database with searches on the device, such as cold ones."
        ),
    ] = None,
    limit: LimitOption = None,
    html: HtmlOption = None,
    db: DbOption = None,
    releases: ReleasesOption = None,
    shipped: ShippedOption = True,
    json: JsonOption = False,
) -> None:
    """Show the best speed so far against trials, by class of kernels, and trials that a warm search saves.

    A search is warm where it began with what the database knew of other devices. Compare one database tuned warm with
    another tuned cold by --against.
    """
    with ExitStack() as stack:
        store = stack.enter_context(open_layers(db, releases=releases or (), shipped=shipped, warn=note))
        chosen = select_model(store, model)
        info = select_device(store, device, capture_key=chosen.capture_key)
        names = select_kernels(model_launches(store, chosen.capture_key, 1), stage, kernels)
        other = None if against is None else stack.enter_context(opened(against))
        sessions = store.layers[0].sessions(device_key=info.key, limit=1)
        runtime = sessions[0].info.runtime if sessions else Runtime.WGPU
        made = search_report(store, chosen.name, names, info, runtime, other, share)
    if html is not None:
        write_search_page(html, made)
        note(f"wrote {html}")
    print_report(made, json=json, console=stdout(), limit=limit)
