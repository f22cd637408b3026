"""The overview: what runs, what it costs, how good it is, and what needs a person."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tierwise.desk.access import Viewer
from tierwise.desk.desk import TheDesk

router = APIRouter()


@router.get("/")
def overview(desk: TheDesk, request: Request, person: Viewer) -> Response:  # noqa: ARG001
    """Return the overview."""
    return desk.page(request, "overview.html.j2")
