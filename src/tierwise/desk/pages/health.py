"""/healthz: whether the desk and its ledger answer. It answers strangers, and says nothing else."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse

from tierwise.desk.desk import TheDesk
from tierwise.desk.probe import PROOF_HEADER
from tierwise.errors import LedgerError

router = APIRouter()


@router.get("/healthz")
def health(
    desk: TheDesk, challenge: Annotated[str, Query(max_length=64)] = ""
) -> PlainTextResponse:
    """Return 200 while the ledger answers, else 503; with a challenge, a proof of the desk's key."""
    headers = {}
    if challenge:
        headers[PROOF_HEADER] = desk.access.proof(challenge)
    try:
        desk.ledger.runs.span()
    except LedgerError:
        return PlainTextResponse("the ledger does not answer\n", 503, headers=headers)
    return PlainTextResponse("ok\n", headers=headers)
