"""A column for what a session measured of its device: highest throughput, and the time of a launch."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("session", sa.Column("calibration", sa.JSON(), server_default="{}", nullable=False))
