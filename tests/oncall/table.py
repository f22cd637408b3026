"""The rows of the cases, kept in files between processes, and the table at the end."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROWS = "TIERWISE_ONCALL_ROWS"  # the folder for rows; set by `python -m tests.oncall`
SEED = "TIERWISE_ONCALL_SEED"  # of the random moments
FULL = "TIERWISE_ONCALL_FULL"  # set for the long form
UNDISTURBED = "undisturbed"
_HEAD = (
    "case",
    "documents done",
    "calls paid",
    "paid twice",
    "unknown cost",
    "cost, USD",
    "seconds",
    "beside undisturbed",
    "remarks",
)


@dataclass(frozen=True)
class Row:
    """What one case came to."""

    case: str
    documents: int
    done: int
    paid: int  # answers on the provider's invoice
    paid_twice: int
    unknown_cost: int  # attempts without a known cost, by the ledger
    cost_usd: float  # by the ledger
    seconds: float
    note: str = ""


def ledger_money(runs: Iterable[Mapping[str, Any]]) -> tuple[float, int]:
    """USD, and the number of attempts of unknown cost, over the runs of `tierwise runs --json`."""
    cost = 0.0
    unknown = 0
    for run in runs:
        cost += float(run["cost_known"])
        unknown += int(run["cost_unknown"])
    return cost, unknown


def keep(row: Row) -> None:
    """Keep a row for the table."""
    folder = Path(os.environ[ROWS])
    name = row.case.replace(" ", "-").replace("/", "-")
    (folder / f"{name}.json").write_text(json.dumps(asdict(row)))


def keep_lines(title: str, lines: Iterable[str]) -> None:
    """Keep a list that is printed below the table."""
    folder = Path(os.environ[ROWS])
    name = title.replace(" ", "-").replace("/", "-")
    (folder / f"{name}.txt").write_text("\n".join([title, "", *lines]) + "\n")


def read_lists(folder: Path) -> list[str]:
    """The lists that were kept."""
    return [path.read_text() for path in sorted(folder.glob("*.txt"))]


def new_seed() -> int:
    """A seed that no run had."""
    return random.SystemRandom().randrange(10**6)


def read_rows(folder: Path) -> list[Row]:
    """The rows that were kept, the undisturbed one first, then in the order of their end."""
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    rows = [Row(**json.loads(path.read_text())) for path in files]
    return sorted(rows, key=lambda row: row.case != UNDISTURBED)


def table(rows: Iterable[Row]) -> str:
    """The table in Markdown, each case beside the undisturbed one."""
    rows = list(rows)
    calm = next((row for row in rows if row.case == UNDISTURBED), None)
    lines = [_line(_HEAD), _line(["---"] * len(_HEAD))]
    lines += [_line(_cells(row, calm)) for row in rows]
    return "\n".join(lines)


def _cells(row: Row, calm: Row | None) -> list[str]:
    beside = ""
    if calm and row is not calm:
        more_seconds = row.seconds - calm.seconds
        more_cost = row.cost_usd / calm.cost_usd - 1 if calm.cost_usd else 0
        beside = f"{more_seconds:+.0f} s, {more_cost:+.0%} cost"
    return [
        row.case,
        f"{row.done} of {row.documents}",
        str(row.paid),
        str(row.paid_twice),
        str(row.unknown_cost),
        f"{row.cost_usd:.4f}",
        f"{row.seconds:.0f}",
        beside,
        row.note,
    ]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
