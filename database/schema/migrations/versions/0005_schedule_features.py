"""A table for what search knows of schedules: features that teach a cost model."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "schedule_features",
        sa.Column("workload_digest", sa.String(64), nullable=False),
        sa.Column("schedule_digest", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("features", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("schedule_digest", "workload_digest", "version", name=op.f("pk_schedule_features")),
    )
