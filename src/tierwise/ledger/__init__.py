"""The append-only record of a project, and the only door to SQLAlchemy."""

from __future__ import annotations

from tierwise.ledger.budgets import BudgetChange
from tierwise.ledger.leases import RunProcess, Sign
from tierwise.ledger.people.reviews import Decision
from tierwise.ledger.protocols import BudgetLedger, CallLedger
from tierwise.ledger.rows import (
    DeferredRow,
    OutcomeRow,
    Paid,
    RunFolders,
    RunInfo,
    RunRow,
    RunState,
    SummaryRow,
)
from tierwise.ledger.store import Ledger

__all__ = [
    "BudgetChange",
    "BudgetLedger",
    "CallLedger",
    "Decision",
    "DeferredRow",
    "Ledger",
    "OutcomeRow",
    "Paid",
    "RunFolders",
    "RunInfo",
    "RunProcess",
    "RunRow",
    "RunState",
    "Sign",
    "SummaryRow",
]
