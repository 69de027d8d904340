"""What tuning learned: the SQL schema, its migrations, and the store through which everything goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tvm.database import Policy, ScheduleDatabase

__all__ = ["Policy", "ScheduleDatabase"]


def __getattr__(name: str) -> Any:
    """`ScheduleDatabase` and its `Policy`, when they are first asked for: they need TVM, the rest does not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .tvm import database as tvm_database

    return getattr(tvm_database, name)
