"""The messages between the sandbox and its child: a head in JSON, then bytes.

A request is the head and the file. A reply is the head, and a message for each part that has data.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tierwise.documents.readers.results import Extracted, Part
from tierwise.documents.readers.settings import ReadingSettings, Request
from tierwise.records import page_words

_LENGTH_BYTES = 8  # before each message


def send(stream: IO[bytes], data: bytes) -> None:
    """Write one message: eight bytes of length, then the data."""
    length = len(data).to_bytes(_LENGTH_BYTES, "big")
    stream.write(length + data)
    stream.flush()


def receive(stream: IO[bytes]) -> bytes | None:
    """Return the next message, or None when the other side is gone."""
    header = stream.read(_LENGTH_BYTES)
    if len(header) < _LENGTH_BYTES:
        return None
    length = int.from_bytes(header, "big")
    data = stream.read(length)
    return data if len(data) == length else None


def request_head(request: Request) -> bytes:
    """Return a request as JSON."""
    settings = request.settings
    return json.dumps(
        {
            "suffix": request.suffix,
            "text_column": request.text_column,
            "max_bytes": request.max_bytes,
            "show": request.show,
            "tables": settings.tables,
            "rows_at": settings.rows_at,
            "attachments": settings.attachments,
            "ocr": settings.ocr,
            "own": dict(settings.own),
            "root": str(settings.root or ""),
        }
    ).encode()


def parse_request(head: bytes) -> Request:
    """Return the request of a head."""
    data = json.loads(head)
    settings = ReadingSettings(
        tables=data["tables"],
        rows_at=data["rows_at"],
        attachments=data["attachments"],
        ocr=data["ocr"],
        own=data["own"],
        root=Path(data["root"]) if data["root"] else None,
    )
    return Request(
        data["suffix"],
        data["text_column"],
        data["max_bytes"],
        settings,
        data["show"],
    )


def reply_messages(extracted: Extracted) -> list[bytes]:
    """Return the messages of a reply."""
    blobs: list[bytes] = []
    head = json.dumps(_to_json(extracted, blobs)).encode()
    return [head, *blobs]


def error_messages(error: str) -> list[bytes]:
    """Return the messages of a reply that says why a file cannot be read."""
    return [json.dumps({"error": error}).encode()]


def parse_reply(data: Any, next_blob: Callable[[], bytes]) -> Extracted:
    """Return the content of a reply; `next_blob` gives the bytes of its parts in their order."""
    parts: list[Part] = []
    for part in data["parts"]:
        extracted = None
        if part["extracted"] is not None:
            extracted = parse_reply(part["extracted"], next_blob)
        parts.append(
            Part(
                key=part["key"],
                name=part["name"],
                extracted=extracted,
                data=next_blob() if part["has_data"] else None,
                problem=part["problem"],
            )
        )
    return Extracted(
        data["text"],
        data["metadata"],
        tuple(data["declared"]),
        tuple(data["unread"]),
        tuple(data["unread_pages"]),
        data["remedy"],
        tuple(parts),
        data["is_document"],
        tuple(page_words(page, data["text"]) for page in data["pages"]),
        data["page_total"],
    )


def _to_json(extracted: Extracted, blobs: list[bytes]) -> dict[str, Any]:
    """Return the content as JSON has it, and append the bytes of its parts to `blobs`."""
    parts: list[dict[str, Any]] = []
    for part in extracted.parts:
        inner = None
        if part.extracted is not None:
            inner = _to_json(part.extracted, blobs)
        if part.data is not None:
            blobs.append(part.data)
        parts.append(
            {
                "key": part.key,
                "name": part.name,
                "extracted": inner,
                "has_data": part.data is not None,
                "problem": part.problem,
            }
        )
    return {
        "text": extracted.text,
        "metadata": extracted.metadata,
        "declared": extracted.declared,
        "unread": extracted.unread,
        "unread_pages": extracted.unread_pages,
        "remedy": extracted.remedy,
        "parts": parts,
        "is_document": extracted.is_document,
        "pages": [page.as_data() for page in extracted.pages],
        "page_total": extracted.page_total,
    }
