"""Tables for what GPUs' compilers make of shaders, and for the shaders of programs."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "program_shader",
        sa.Column("program_digest", sa.String(64), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("shader_digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("program_digest", "position", name=op.f("pk_program_shader")),
    )
    op.create_table(
        "compiled_shader",
        sa.Column("shader_digest", sa.String(64), nullable=False),
        sa.Column("compiler", sa.String(255), nullable=False),
        sa.Column("chip", sa.String(255), nullable=False),
        sa.Column("vgprs", sa.Integer(), nullable=False),
        sa.Column("sgprs", sa.Integer(), nullable=False),
        sa.Column("spilled_vgprs", sa.Integer(), nullable=False),
        sa.Column("spilled_sgprs", sa.Integer(), nullable=False),
        sa.Column("scratch_bytes", sa.Integer(), nullable=False),
        sa.Column("workgroup_bytes", sa.Integer(), nullable=False),
        sa.Column("waves", sa.Integer(), nullable=False),
        sa.Column("instructions", sa.Integer(), nullable=False),
        sa.Column("code_bytes", sa.Integer(), nullable=False),
        sa.Column("latency_cycles", sa.BigInteger(), nullable=False),
        sa.Column("inverse_throughput_cycles", sa.BigInteger(), nullable=False),
        sa.Column("hot_instructions", sa.Integer(), nullable=True),
        sa.Column("hot_multiply_adds", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("shader_digest", "compiler", "chip", name=op.f("pk_compiled_shader")),
    )
