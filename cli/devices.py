"""`wgtune devices`: the GPUs of this machine, and how the devices of a database fare."""

from __future__ import annotations

from typing import Annotated

import typer

from ..database.queries.health import device_health
from ..database.store import Store
from ..devices.discovery.discovery import discover, select
from ..devices.offline.chips import CUDA_CHIPS, find_chips
from ..reports.listings.devices import print_devices
from ..reports.listings.health import print_health
from ..support.console import stdout, warn
from .options import DbOption, JsonOption


def devices(
    health: Annotated[
        bool, typer.Option("--health", help="Show trials, faults and quarantine of the devices in the database.")
    ] = False,
    db: DbOption = None,
    json: JsonOption = False,
) -> None:
    """List the GPUs of this machine that can be tuned, and chips that programs can be compiled for without a GPU.

    Software adapters are among the GPUs. Exits with 3 if there is no GPU.
    """
    if health:
        with Store.open(db, create=False) as store:
            print_health(device_health(store), json=json, console=stdout())
        return
    found = discover()
    if not found.devices:
        select("auto", [], found.problems)  # raises, saying what to install
    for problem in found.problems:
        warn(problem)
    chips, missing = find_chips()
    # A toolkit for NVIDIA's chips is a large extra, so there is no word where it is missing.
    chips += find_chips(CUDA_CHIPS)[0]
    print_devices(found.devices, chips, missing, json=json, console=stdout())
