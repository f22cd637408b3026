"""Style sheet, script and icon. They hold nothing of the project."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import Response

from tierwise.desk.desk import TheDesk

router = APIRouter()
# The address changes with the text, so a browser never has to ask again.
_KEPT = {"cache-control": "public, max-age=31536000, immutable"}


@router.get("/static/{version}/desk.css")
def style(desk: TheDesk, version: str) -> Response:
    """Return the style sheet."""
    headers = _KEPT if version == desk.assets else {}
    return Response(desk.styles, media_type="text/css", headers=headers)


@router.get("/static/{version}/desk.js")
def script(desk: TheDesk, version: str) -> Response:
    """Return the script."""
    headers = _KEPT if version == desk.assets else {}
    return Response(desk.script, media_type="text/javascript", headers=headers)


@router.get("/static/{version}/desk.svg")
def icon(version: str) -> Response:  # noqa: ARG001 - the icon has no versions
    """Return the icon."""
    path = files("tierwise.desk") / "static" / "desk.svg"
    return Response(path.read_bytes(), media_type="image/svg+xml", headers=_KEPT)
