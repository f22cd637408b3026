"""The folders that runs read and wrote, and whose pages have the plain names in a folder.

Runs of earlier versions have these folders in their parameters alone, under the names that the
shipped flows use. A flow with other names counts as before: for every folder.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_PAGE = 500  # rows written at once
_NAMES = ("source", "out")

_runs = sa.table("runs", sa.column("id", sa.Text()), sa.column("parameters", sa.Text()))
_run_folders = sa.table(
    "run_folders",
    sa.column("run_id", sa.Text()),
    sa.column("folders", sa.Text()),
    sa.column("is_further", sa.Boolean()),
)


def upgrade() -> None:
    """Add two tables, and fill one from the parameters of runs."""
    op.create_table(
        "run_folders",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("folders", sa.Text(), nullable=False),
        sa.Column("is_further", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name="fk_run_folders_run_id_runs"
        ),
        sa.PrimaryKeyConstraint("seq", name="pk_run_folders"),
    )
    op.create_index("ix_run_folders_run_id", "run_folders", ["run_id"])
    op.create_table(
        "outputs",
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("folder", name="pk_outputs"),
    )
    _fill(op.get_bind())


def _fill(connection: sa.Connection) -> None:
    rows: list[dict[str, Any]] = []
    for run_id, parameters in connection.execute(
        sa.select(_runs.c.id, _runs.c.parameters)
    ):
        given = json.loads(parameters or "{}") or {}
        naming = {
            name: given[name] for name in _NAMES if isinstance(given.get(name), str)
        }
        # as `RunFolders.as_json` writes it
        folders = {"naming": naming, "output": None, "source": None}
        text = json.dumps(folders, sort_keys=True)
        rows.append({"run_id": run_id, "folders": text, "is_further": False})
    for start in range(0, len(rows), _PAGE):
        connection.execute(_run_folders.insert(), rows[start : start + _PAGE])
