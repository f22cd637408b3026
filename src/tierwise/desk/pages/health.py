"""/healthz: whether the desk and its ledger answer. It answers strangers, and says nothing else."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from tierwise.desk.desk import TheDesk
from tierwise.errors import LedgerError

router = APIRouter()


@router.get("/healthz")
def health(desk: TheDesk) -> PlainTextResponse:
    """Return 200 while the ledger answers, else 503."""
    try:
        desk.ledger.runs.span()
    except LedgerError:
        return PlainTextResponse("the ledger does not answer\n", 503)
    return PlainTextResponse("ok\n")
