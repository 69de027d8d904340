"""The first schema: devices, models and their workloads, sessions, schedules and trials."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "device",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("backend", sa.String(64), nullable=False),
        sa.Column("vendor", sa.String(255), nullable=False),
        sa.Column("architecture", sa.String(255), nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("software", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device")),
        sa.UniqueConstraint("key", name=op.f("uq_device_key")),
    )
    op.create_table(
        "model",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("capture_key", sa.String(64), nullable=False),
        sa.Column("name", sa.String(1024), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("steps_hint", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model")),
        sa.UniqueConstraint("capture_key", name=op.f("uq_model_capture_key")),
    )
    op.create_table(
        "schedule",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("trace", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule")),
        sa.UniqueConstraint("digest", name=op.f("uq_schedule_digest")),
    )
    op.create_table(
        "workload",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("tvm_json", sa.LargeBinary(), nullable=False),
        sa.Column("tvm_version", sa.String(64), nullable=False),
        sa.Column("tvm_hash", sa.String(64), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("outputs", sa.JSON(), nullable=False),
        sa.Column("flops", sa.Double(), nullable=False),
        sa.Column("nbytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workload")),
        sa.UniqueConstraint("digest", name=op.f("uq_workload_digest")),
    )
    op.create_table(
        "model_kernel",
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("stage", sa.String(64), nullable=False),
        sa.Column("workload_id", sa.Integer(), nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("fk_model_kernel_model_id_model")),
        sa.ForeignKeyConstraint(["workload_id"], ["workload.id"], name=op.f("fk_model_kernel_workload_id_workload")),
        sa.PrimaryKeyConstraint("model_id", "stage", "workload_id", name=op.f("pk_model_kernel")),
    )
    op.create_table(
        "session",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uid", sa.String(32), nullable=False),
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("runtime", sa.String(24), nullable=False),
        sa.Column("driver", sa.String(1024), nullable=False),
        sa.Column("adapter", sa.JSON(), nullable=False),
        sa.Column("toolchain", sa.JSON(), nullable=False),
        sa.Column("model", sa.String(1024), nullable=False),
        sa.Column("capture_key", sa.String(64), nullable=False),
        sa.Column("tier", sa.String(64), nullable=False),
        sa.Column("budget", sa.JSON(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(24), nullable=False),
        sa.Column("started", sa.DateTime(), nullable=False),
        sa.Column("ended", sa.DateTime(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"], name=op.f("fk_session_device_id_device")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session")),
        sa.UniqueConstraint("uid", name=op.f("uq_session_uid")),
    )
    op.create_index(op.f("ix_session_capture_key"), "session", ["capture_key"], unique=False)
    op.create_index(op.f("ix_session_device_id"), "session", ["device_id"], unique=False)
    op.create_table(
        "trial",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=False),
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
        sa.CheckConstraint("(state = 'ok') = (latency_s IS NOT NULL)", name=op.f("ck_trial_latency_iff_ok")),
        sa.CheckConstraint(
            "(state IN ('pending', 'running')) = (ended IS NULL)", name=op.f("ck_trial_ended_iff_final")
        ),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"], name=op.f("fk_trial_device_id_device")),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedule.id"], name=op.f("fk_trial_schedule_id_schedule")),
        sa.ForeignKeyConstraint(["session_id"], ["session.id"], name=op.f("fk_trial_session_id_session")),
        sa.ForeignKeyConstraint(["workload_id"], ["workload.id"], name=op.f("fk_trial_workload_id_workload")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trial")),
    )
    op.create_index(op.f("ix_trial_session_id_state"), "trial", ["session_id", "state"], unique=False)
    op.create_index(
        op.f("ix_trial_workload_id_device_id_runtime_state_latency_s_kind"),
        "trial",
        ["workload_id", "device_id", "runtime", "state", "latency_s", "kind"],
        unique=False,
    )
