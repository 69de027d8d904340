"""Trials that any database can name, and tables for aliases, leases, replays, releases and unreadable entries.

Also TVM's forms of a workload, times without verification, trials measured again, warm-up samples and cache states.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

TRIAL_COLUMNS = (
    "id, session_id, workload_id, device_id, schedule_id, runtime, kind, state, latency_s, program_digest, needs, "
    "launches, seed, samples_s, timer, compile_s, run_s, verify_s, max_error, rtol, atol, error, started, ended"
)
NUMBER = "row_number() OVER (PARTITION BY session_id ORDER BY id)"
"""The same in every copy of a database: copies keep their trials' ids."""
TIMED = "(state IN ('ok', 'unverified')) = (latency_s IS NOT NULL)"


def upgrade() -> None:
    op.add_column("session", sa.Column("target", sa.Text(), server_default="", nullable=False))
    op.add_column("session", sa.Column("cache", sa.String(24), server_default="warm", nullable=False))
    if op.get_bind().dialect.name == "sqlite":
        _rebuild_trial()
    else:
        _alter_trial()
    op.create_index(
        op.f("ix_trial_schedule_id_workload_id_device_id_runtime_state"),
        "trial",
        ["schedule_id", "workload_id", "device_id", "runtime", "state"],
        unique=False,
        sqlite_where=sa.text("repeat = 1"),
        postgresql_where=sa.text("repeat"),
    )
    _move_forms()
    _create_tables()


def _rebuild_trial() -> None:
    """SQLite changes no constraints in place; its indexes go with the old table."""
    op.create_table(
        "trial_new",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("workload_id", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("schedule_id", BIG_ID, nullable=False),
        sa.Column("runtime", sa.String(24), nullable=False),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("state", sa.String(24), nullable=False),
        sa.Column("latency_s", sa.Double(), nullable=True),
        sa.Column("program_digest", sa.String(64), nullable=False),
        sa.Column("needs", sa.JSON(), nullable=False),
        sa.Column("launches", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("samples_s", sa.JSON(), nullable=False),
        sa.Column("timer", sa.String(24), nullable=False),
        sa.Column("compile_s", sa.Double(), nullable=False),
        sa.Column("run_s", sa.Double(), nullable=False),
        sa.Column("verify_s", sa.Double(), nullable=False),
        sa.Column("max_error", sa.Double(), nullable=True),
        sa.Column("rtol", sa.Double(), nullable=False),
        sa.Column("atol", sa.Double(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("started", sa.DateTime(), nullable=False),
        sa.Column("ended", sa.DateTime(), nullable=True),
        *_new_columns(),
        sa.CheckConstraint(TIMED, name=op.f("ck_trial_latency_iff_timed")),
        sa.CheckConstraint(
            "(state IN ('pending', 'running')) = (ended IS NULL)", name=op.f("ck_trial_ended_iff_final")
        ),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"], name=op.f("fk_trial_device_id_device")),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedule.id"], name=op.f("fk_trial_schedule_id_schedule")),
        sa.ForeignKeyConstraint(["session_id"], ["session.id"], name=op.f("fk_trial_session_id_session")),
        sa.ForeignKeyConstraint(["workload_id"], ["workload.id"], name=op.f("fk_trial_workload_id_workload")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trial")),
        sa.UniqueConstraint("session_id", "number", name=op.f("uq_trial_session_id_number")),
    )
    op.execute(f"INSERT INTO trial_new ({TRIAL_COLUMNS}, number) SELECT {TRIAL_COLUMNS}, {NUMBER} FROM trial")
    op.drop_table("trial")
    op.rename_table("trial_new", "trial")
    op.create_index(op.f("ix_trial_session_id_state"), "trial", ["session_id", "state"], unique=False)
    op.create_index(
        op.f("ix_trial_workload_id_device_id_runtime_state_latency_s_kind"),
        "trial",
        ["workload_id", "device_id", "runtime", "state", "latency_s", "kind"],
        unique=False,
    )


def _new_columns() -> list[sa.Column]:
    return [
        sa.Column("warmup_s", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("repeat", sa.Boolean(), server_default=sa.false(), nullable=False),
    ]


def _alter_trial() -> None:
    for column in _new_columns():
        op.add_column("trial", column)
    op.add_column("trial", sa.Column("number", sa.Integer(), nullable=True))
    op.execute(
        f"UPDATE trial SET number = counted.number FROM (SELECT id, {NUMBER} AS number FROM trial) AS counted "
        "WHERE counted.id = trial.id"
    )
    op.alter_column("trial", "number", nullable=False)
    op.create_unique_constraint(op.f("uq_trial_session_id_number"), "trial", ["session_id", "number"])
    op.drop_constraint(op.f("ck_trial_latency_iff_ok"), "trial", type_="check")
    op.create_check_constraint(op.f("ck_trial_latency_iff_timed"), "trial", TIMED)


def _move_forms() -> None:
    op.create_table(
        "workload_form",
        sa.Column("workload_id", sa.Integer(), nullable=False),
        sa.Column("tvm_version", sa.String(64), nullable=False),
        sa.Column("module", sa.LargeBinary(), nullable=False),
        sa.Column("structural_hash", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["workload_id"], ["workload.id"], name=op.f("fk_workload_form_workload_id_workload")),
        sa.PrimaryKeyConstraint("workload_id", "tvm_version", name=op.f("pk_workload_form")),
    )
    op.execute(
        "INSERT INTO workload_form (workload_id, tvm_version, module, structural_hash) "
        "SELECT id, tvm_version, tvm_json, tvm_hash FROM workload"
    )
    for column in ("tvm_json", "tvm_version", "tvm_hash"):
        op.drop_column("workload", column)


def _create_tables() -> None:
    op.create_table(
        "replay",
        sa.Column("workload_id", sa.Integer(), nullable=False),
        sa.Column("schedule_id", BIG_ID, nullable=False),
        sa.Column("tvm_version", sa.String(64), nullable=False),
        sa.Column("status", sa.String(24), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("program_digest", sa.String(64), nullable=False),
        sa.Column("checked", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedule.id"], name=op.f("fk_replay_schedule_id_schedule")),
        sa.ForeignKeyConstraint(["workload_id"], ["workload.id"], name=op.f("fk_replay_workload_id_workload")),
        sa.PrimaryKeyConstraint("workload_id", "schedule_id", "tvm_version", name=op.f("pk_replay")),
    )
    op.create_table(
        "lease",
        sa.Column("workload_id", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("runtime", sa.String(24), nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=True),
        sa.Column("until", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"], name=op.f("fk_lease_device_id_device")),
        sa.ForeignKeyConstraint(["session_id"], ["session.id"], name=op.f("fk_lease_session_id_session")),
        sa.ForeignKeyConstraint(["workload_id"], ["workload.id"], name=op.f("fk_lease_workload_id_workload")),
        sa.PrimaryKeyConstraint("workload_id", "device_id", "runtime", name=op.f("pk_lease")),
    )
    op.create_table(
        "alias",
        sa.Column("level", sa.String(24), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("vendor", sa.String(255), nullable=True),
        sa.Column("architecture", sa.String(255), nullable=True),
        sa.Column("model", sa.String(255), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("level", "name", name=op.f("pk_alias")),
    )
    op.create_table(
        "opaque",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("source", sa.String(1024), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("text", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("added", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_opaque")),
        sa.UniqueConstraint("digest", name=op.f("uq_opaque_digest")),
    )
    op.create_table(
        "release",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("content", sa.String(64), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_release")),
    )
