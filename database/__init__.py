"""The trial database: schema, migrations, reading, writing, releases, and TVM's view of it.

May import ``support`` only; `wgtune.devices` and this package know nothing of each other. SQL stays in this package.
Reading order:

- `schema`: tables, column types, records, engines and migrations.
- `device_identity`: who a reported GPU name is: vendor, architecture or model; the user's aliases.
- `reader`: the read contract, without SQL, which most of wgtune uses.
- `sql_reader`: the read contract over one database.
- `store`: opens a database; every write goes through it.
- `sql_helpers`: inserts of rows that may exist, and look-ups by several columns.
- `readonly`: opens databases that must not change, such as releases.
- `liveness`, `leases`: which sessions are alive, and which of them works on which workload.
- `queries`: questions beyond the contract: several databases as one, transfer, health, re-measured trials.
- `exchange`: merge, release, compare and check whole databases.
- `tvm`: kernel identity, traces, and the MetaSchedule database. The only part that imports TVM.

`ScheduleDatabase` and `Policy` can be imported from here; they load TVM when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tvm.database import Policy, ScheduleDatabase

__all__ = ["Policy", "ScheduleDatabase"]


def __getattr__(name: str) -> Any:
    """Import `ScheduleDatabase` and `Policy` on first use: they need TVM, the rest does not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .tvm import database as tvm_database

    return getattr(tvm_database, name)
