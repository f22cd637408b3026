"""Addresses of pages, for ids of any characters."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import quote, urlencode

from tierwise.text.escape import escape_control

_MARK = "="


def run_path(run_id: str) -> str:
    """Return the address of a run's page."""
    return f"/runs/{quote(run_id, safe='')}"


def document_path(run_id: str, document_id: str) -> str:
    """Return the address of a document's page."""
    return (
        f"{run_path(run_id)}/document?id={quote(to_parameter(document_id), safe='/')}"
    )


def item_path(run_id: str, document_id: str, step: str) -> str:
    """Return the address of an outcome among the reviews, where people decide about it."""
    values = {"run": run_id, "document": to_parameter(document_id), "at": step}
    return f"/review/item?{urlencode(values)}"


def to_parameter(text: str) -> str:
    """Return an id as the value of a parameter: itself, or coded where it cannot be one.

    A file's name may have half characters, which no UTF-8 text has, and control characters, which
    a page spells out: a form would send another id back.
    """
    is_plain = not text.startswith(_MARK) and escape_control(text) == text
    try:
        text.encode()
    except UnicodeEncodeError:
        is_plain = False
    if is_plain:
        return text
    data = text.encode("utf-8", "surrogatepass")
    return _MARK + base64.urlsafe_b64encode(data).decode()


def from_parameter(value: str) -> str:
    """Return the id behind the value of a parameter; one that was not made here is an id itself."""
    if not value.startswith(_MARK):
        return value
    try:
        return base64.urlsafe_b64decode(value[1:]).decode("utf-8", "surrogatepass")
    except (binascii.Error, ValueError):
        return value
