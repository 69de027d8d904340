"""`wgtune db …`: look after databases of trials."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..database.device_identity import Alias, shipped_aliases
from ..database.exchange.admin import check, info, upgrade
from ..database.exchange.diff import diff
from ..database.exchange.merge import merge
from ..database.exchange.release import write_release
from ..database.queries.layers import open_layers, open_releases
from ..database.queries.trial_details import session_number, show_session, show_trial
from ..database.readonly import opened
from ..database.schema.records import AliasLevel
from ..database.store import Store
from ..reports.listings.aliases import print_aliases
from ..reports.listings.database import print_database, print_problems, print_replayed, print_upgrade
from ..reports.listings.exchange import print_diff, print_exported, print_imported, print_merged, print_release
from ..reports.listings.session import print_shown
from ..reports.selection import select_device
from ..support.console import note, progress, stdout
from ..support.enums import Runtime
from ..tuner.interop.json_export import export_pair, only_runtime
from ..tuner.interop.json_import import import_pair
from ..tuner.interop.replay import replay_database
from .options import DbOption, JsonOption, KnownDeviceOption, ReleasesOption, ShippedOption

_LevelOption = Annotated[
    AliasLevel, typer.Option("--level", help="Whether the name is of a vendor, an architecture or a model.")
]
_NameArgument = Annotated[str, typer.Argument(help="The name as it is reported; a * at its end matches any rest.")]


def alias_list(db: DbOption = None, json: JsonOption = False) -> None:
    """List the aliases: your own, then those that come with wgtune."""
    with Store.open(db, create=db is None) as store:
        print_aliases(store.aliases(), shipped_aliases(), json=json, console=stdout())


def alias_add(
    name: _NameArgument,
    level: _LevelOption = AliasLevel.MODEL,
    vendor: Annotated[str | None, typer.Option(help="The vendor it stands for.")] = None,
    architecture: Annotated[str | None, typer.Option(help="The architecture it stands for.")] = None,
    model: Annotated[str | None, typer.Option(help="The model it stands for.")] = None,
    reason: Annotated[str, typer.Option(help="Reason, stored with the alias.")] = "",
    db: DbOption = None,
    json: JsonOption = False,
) -> None:
    """Map a reported GPU name to vendor, architecture or model.

    Your own aliases take precedence over those that come with wgtune.
    """
    with Store.open(db, create=db is None) as store:
        store.add_alias(Alias(level, name, vendor, architecture, model, reason))
        if json:
            print_aliases(store.aliases(), (), json=True, console=stdout())


def alias_remove(
    name: _NameArgument, level: _LevelOption = AliasLevel.MODEL, db: DbOption = None, json: JsonOption = False
) -> None:
    """Remove one of your own aliases. Those that come with wgtune stay: add one of the same name to override."""
    with Store.open(db, create=db is None) as store:
        if not store.remove_alias(level, name):
            note(f"there was no alias of yours for the {level.value} {name!r}")
        if json:
            print_aliases(store.aliases(), (), json=True, console=stdout())


def db_info(
    db: DbOption = None, releases: ReleasesOption = None, shipped: ShippedOption = True, json: JsonOption = False
) -> None:
    """Show size, schema, sessions, trials by device and state, and how many schedules TVM still applies."""
    with open_releases(releases or (), shipped=shipped, warn=note) as readers:
        print_database(info(db, releases=readers), json=json, console=stdout())


def db_upgrade(db: DbOption = None, json: JsonOption = False) -> None:
    """Upgrade a database of an older wgtune to the schema of this one."""
    print_upgrade(upgrade(db), json=json, console=stdout())


def db_check(db: DbOption = None, json: JsonOption = False) -> None:
    """Check every value of a database. Exits with 4 if one is damaged."""
    problems = check(db)
    print_problems(problems, json=json, console=stdout())
    if problems:
        raise typer.Exit(4)


def db_replay(
    again: Annotated[bool, typer.Option("--again", help="Replay schedules again whose result is known.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Include schedules of failed trials.")] = False,
    db: DbOption = None,
    releases: ReleasesOption = None,
    shipped: ShippedOption = True,
    json: JsonOption = False,
) -> None:
    """Replay every stored schedule with the installed TVM; those that fail are marked stale, and not used.

    Schedules of releases are replayed, too; the results are kept in your own database.
    """
    with (
        Store.open(db, create=db is None) as store,
        open_releases(releases or (), shipped=shipped, warn=note) as readers,
        progress("Replaying") as report,
    ):
        replayed = replay_database(store, report, releases=readers, again=again, everything=everything)
    print_replayed(replayed.to_json(), json=json, console=stdout())


def db_merge(
    sources: Annotated[list[str], typer.Argument(help="Databases or releases to read, files or URLs.")],
    into: Annotated[
        str | None, typer.Option("--into", metavar="URL", help="The database to add to, made when missing.")
    ] = None,
    db: DbOption = None,
    json: JsonOption = False,
) -> None:
    """Merge databases. No trial is lost, and any order or repetition gives the same result.

    Without --into they are merged into your own database, or into --db.
    """
    print_merged(merge(sources, into or db), json=json, console=stdout())


def db_release(
    name: Annotated[str, typer.Argument(help="Name of the release; the file name starts with it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")] = Path("."),
    top: Annotated[int, typer.Option(min=1, help="Schedules per kernel, device, runtime and tier.")] = 3,
    device: Annotated[
        list[str] | None, typer.Option("--device", "-d", help="Only the device with this key; may be repeated.")
    ] = None,
    tier: Annotated[list[str] | None, typer.Option(help="Only records of this tier; may be repeated.")] = None,
    keep_host: Annotated[bool, typer.Option("--keep-host", help="Keep host names and process ids.")] = False,
    db: DbOption = None,
    json: JsonOption = False,
) -> None:
    """Write the best records and baselines as one small read-only file, with a manifest and a page beside it."""
    with opened(db) as reader:
        path, manifest = write_release(
            reader, name, output, top=top, devices=device or (), tiers=tier or (), keep_host=keep_host
        )
    print_release(path, manifest, json=json, console=stdout())


def db_diff(
    old: Annotated[str, typer.Argument(help="A database or release: a file or URL.")],
    new: Annotated[str, typer.Argument(help="The one to compare with it.")],
    json: JsonOption = False,
) -> None:
    """Compare two databases kernel by kernel: covered or lost, faster, slower, stale, unverified.

    Exits with 1 if a kernel was lost, slowed down, or became stale or unverified.
    """
    with opened(old) as before, opened(new) as after:
        found = diff(before, after)
    print_diff(found, json=json, console=stdout())
    if found.regressed:
        raise typer.Exit(1)


def db_export(
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")],
    device: KnownDeviceOption = None,
    runtime: Annotated[
        Runtime | None, typer.Option(help="Runtime that measured the schedules; needed if a device has several.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Number of fastest schedules of each kernel; by default all.")
    ] = None,
    unverified: Annotated[bool, typer.Option("--unverified", help="Include unverified schedules.")] = False,
    releases: ReleasesOption = None,
    shipped: ShippedOption = True,
    db: DbOption = None,
    json: JsonOption = False,
) -> None:
    """Write a device's schedules as the two JSON files that stock MetaSchedule reads."""
    with (
        open_layers(db, releases=releases or (), shipped=shipped, warn=note) as reader,
        progress("Exporting") as report,
    ):
        key = select_device(reader, device).key
        chosen = runtime or only_runtime(reader, key, unverified=unverified)
        exported = export_pair(reader, output, key, chosen, top=top, unverified=unverified, report=report)
    print_exported(exported, json=json, console=stdout())


def db_import(
    folder: Annotated[Path, typer.Argument(help="The folder with the two files of TVM's JSONDatabase.")],
    device: Annotated[str, typer.Option("--device", "-d", help="The key of the device that they were measured on.")],
    runtime: Annotated[
        Runtime | None, typer.Option(help="Runtime that measured them; by default that of stock TVM for their targets.")
    ] = None,
    db: DbOption = None,
    json: JsonOption = False,
) -> None:
    """Add schedules that stock MetaSchedule tuned, as unverified trials. Exits with 130 after Ctrl-C."""
    with Store.open(db) as store, progress("Importing") as report:
        imported = import_pair(store, folder, device, runtime, report=report)
    print_imported(imported, json=json, console=stdout())
    if imported.interrupted:
        raise typer.Exit(130)


def db_show(
    session: Annotated[str, typer.Argument(help="Number of the session, or its uid.")],
    trial: Annotated[int | None, typer.Argument(help="A trial of it, counted from 1.")] = None,
    db: DbOption = None,
    json: JsonOption = False,
) -> None:
    """Show all stored values of a session or of one of its trials: samples, seed, trace, needs, error."""
    with Store.open(db, create=False) as store:
        number = session_number(store, session)
        shown = show_session(store, number) if trial is None else show_trial(store, number, trial)
    print_shown(shown, json=json, console=stdout())
