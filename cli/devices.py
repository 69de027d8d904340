"""`wgtune devices`: the GPUs of this machine, and how the devices of a database fare."""

from __future__ import annotations

from typing import Annotated

import typer

from ..database.queries.health import device_health
from ..database.store import Store
from ..devices.discovery.discovery import discover, select
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
    """List the GPUs of this machine that can be tuned, software adapters included. Exits with 3 if there is none."""
    if health:
        with Store.open(db, create=False) as store:
            print_health(device_health(store), json=json, console=stdout())
        return
    found = discover()
    if not found.devices:
        select("auto", [], found.problems)  # raises, saying what to install
    for problem in found.problems:
        warn(problem)
    print_devices(found.devices, json=json, console=stdout())
