"""The schema's history: what the migrations build is what the models say, and every released revision can be opened.

A new revision adds ``databases/revision_NNNN.sql``: a database of that revision with some trials in it, as
``sqlite3 FILE .dump`` writes it. Files of older revisions never change.
"""

from __future__ import annotations

import contextlib
import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from folders import DATABASES
from sqlalchemy import CheckConstraint, create_engine, inspect
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable
from synthetic_store import CAPTURE, CHIP, CONV, KERNELS, LLVMPIPE, MATMUL, SOFTMAX, compiled

from wgtune.database.exchange import admin
from wgtune.database.queries.compiled_facts import known_facts, program_shaders
from wgtune.database.queries.taught_trials import featured_trials
from wgtune.database.schema.migrate import MIGRATIONS, VERSION_TABLE, known_revisions
from wgtune.database.schema.records import SessionOutcome, TrialKind
from wgtune.database.schema.tables import Base
from wgtune.database.store import Store
from wgtune.support.enums import Runtime, TrialState
from wgtune.support.hashing import digest_of


def test_migrations_and_models_agree(tmp_path):
    Store.open(str(tmp_path / "x.db")).close()
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": VERSION_TABLE})
        assert compare_metadata(context, Base.metadata) == []
        # Alembic compares no check constraints.
        for table in Base.metadata.sorted_tables:
            found = {check["name"] for check in inspect(connection).get_check_constraints(table.name)}
            assert found == {c.name for c in table.constraints if isinstance(c, CheckConstraint)}
    engine.dispose()


def test_the_schema_compiles_for_postgresql():
    for table in Base.metadata.sorted_tables:
        assert str(CreateTable(table).compile(dialect=postgresql.dialect()))
        for index in table.indexes:
            assert str(CreateIndex(index).compile(dialect=postgresql.dialect()))
            assert len(index.name) <= 63, "PostgreSQL cuts longer names"


def test_revisions_follow_each_other():
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(MIGRATIONS))
    assert [script.revision for script in scripts.walk_revisions()][::-1] == known_revisions()
    assert scripts.get_current_head() == known_revisions()[-1]


def test_every_revision_has_a_frozen_database():
    assert [f"revision_{revision}.sql" for revision in known_revisions()] == sorted(p.name for p in DATABASES.iterdir())


@pytest.mark.parametrize("revision", known_revisions())
def test_a_database_of_every_revision_opens_with_what_it_holds(tmp_path, revision):
    path = tmp_path / "x.db"
    connection = sqlite3.connect(path)
    connection.executescript((DATABASES / f"revision_{revision}.sql").read_text())
    connection.close()
    assert admin.info(str(path)).revision == revision
    with Store.open(str(path)) as store:
        assert admin.info(str(path)).revision == known_revisions()[-1]
        assert store.devices() == [LLVMPIPE]
        assert store.model_kernels(CAPTURE) == KERNELS
        assert store.workloads([MATMUL.id])[MATMUL.id] == MATMUL
        assert [kept.outcome for kept in store.sessions()] == [SessionOutcome.KILLED, SessionOutcome.COMPLETED]
        best = store.best(LLVMPIPE.key, [MATMUL.id, CONV.id, SOFTMAX.id])
        assert {workload_id: record.latency_s for workload_id, record in best.items()} == {
            MATMUL.id: 1e-3,
            CONV.id: 8e-3,
        }
        assert best[MATMUL.id].trace == '[["GetBlock", []], []]' and best[CONV.id].kind is TrialKind.BASELINE
        assert store.counts(LLVMPIPE.key, [SOFTMAX.id, MATMUL.id]) == {
            SOFTMAX.id: {TrialState.WRONG_RESULT: 1, TrialState.ABANDONED: 1},
            MATMUL.id: {TrialState.OK: 2},
        }
    assert admin.check(str(path)) == []


def test_a_database_of_the_third_revision_has_compiled_shaders(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.executescript((DATABASES / "revision_0003.sql").read_text())
    with Store.open(str(tmp_path / "x.db")) as store:
        assert known_facts(store, [digest_of("a"), digest_of("b")], [CHIP]) == [compiled("b"), compiled("a")]
        assert program_shaders(store, [digest_of("ab")]) == {digest_of("ab"): (digest_of("a"), digest_of("b"))}


def test_a_database_of_the_fifth_revision_has_features(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.executescript((DATABASES / "revision_0005.sql").read_text())
    with Store.open(str(tmp_path / "x.db")) as store:
        found = featured_trials(
            store, 1, software=True, runtime=Runtime.WGPU, workload_ids=[MATMUL.id], within=True, limit=9
        )
        assert {tuple(one.features.items()) for one in found} == {(("kernel.flops", 20.5), ("point.threads", 8.0056))}
