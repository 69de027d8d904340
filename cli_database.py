"""`wgtune db …`: looking after databases of trials. Imports inside commands keep `--help` fast."""

from __future__ import annotations

import typer

from .cli_options import TYPER, DbOption, JsonOption
from .console import stdout

db_app = typer.Typer(help="Look after the database of trials.", **TYPER)


@db_app.command("info", epilog="Example: `wgtune db info --db lab.db`")
def db_info(db: DbOption = None, json: JsonOption = False) -> None:
    """What is in the database: size, schema, sessions, trials by device and state."""
    from .database.admin import info
    from .reports.database import print_database

    print_database(info(db), json=json, console=stdout())


@db_app.command("upgrade", epilog="Example: `wgtune db upgrade --db old.db`")
def db_upgrade(db: DbOption = None, json: JsonOption = False) -> None:
    """Bring a database that an older wgtune wrote to this program's schema."""
    from .database.admin import upgrade
    from .reports.database import print_upgrade

    print_upgrade(upgrade(db), json=json, console=stdout())


@db_app.command("check", epilog="Example: `wgtune db check`")
def db_check(db: DbOption = None, json: JsonOption = False) -> None:
    """Check that a database is whole. Exits with 4 where it is not."""
    from .database.admin import check
    from .reports.database import print_problems

    problems = check(db)
    print_problems(problems, json=json, console=stdout())
    if problems:
        raise typer.Exit(4)
