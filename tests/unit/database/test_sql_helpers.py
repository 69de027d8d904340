"""Rows found by several columns: all of them, no others, and by an index."""

from __future__ import annotations

import pytest
from sqlalchemy import Table, select
from sqlalchemy.types import Integer
from synthetic_store import MATMUL, add_demo, measure, ok, session

from wgtune.database.exchange.portable_rows import KEYS
from wgtune.database.schema.rows import trial
from wgtune.database.sql_helpers import AT_ONCE, matching
from wgtune.database.store import Store


def test_it_finds_the_rows_and_no_others(any_store: Store) -> None:
    add_demo(any_store)
    for count in (3, 300, 2):
        session_id = any_store.begin_session(session())
        for number in range(count):
            measure(any_store, session_id, MATMUL, ok(1e-3), f"trace {number}")
    wanted = {(1, 2), (1, 9), (3, 1), *((2, number) for number in range(5, 300))}
    columns = (trial.c.session_id, trial.c.number)
    conditions = list(matching(columns, [*wanted, (1, 2)]))
    with any_store.reading() as connection:
        found = [tuple(row) for one in conditions for row in connection.execute(select(*columns).where(one))]
    assert sorted(found) == sorted(wanted - {(1, 9)})
    assert len(conditions) <= 2 * (len(wanted) // AT_ONCE + 1) + 2


@pytest.mark.parametrize("table", list(KEYS), ids=str)
def test_sqlite_answers_from_an_index(table: Table) -> None:
    columns = [table.c[name] for name in KEYS[table]]
    keys = [[i if isinstance(column.type, Integer) else f"{i}" for column in columns] for i in range(3)]
    if table.name == "alias":
        keys = [["model", f"{i}"] for i in range(3)]
    with Store.memory() as store, store.reading() as connection:
        for condition in matching(columns, keys):
            text = str(select(table).where(condition).compile(connection, compile_kwargs={"literal_binds": True}))
            plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
            assert any("USING" in line and "INDEX" in line for line in plan) and "SCAN" not in str(plan)
