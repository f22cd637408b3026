"""The trail as a file: JSON Lines or CSV, each record with the hash of the one before, an end record at the end."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from tierwise.errors import Misuse
from tierwise.ledger.people.chain import (
    START,
    Block,
    Record,
    Scope,
    Seal,
    block_name,
    cells,
    digest,
)

Format = Literal["jsonl", "csv"]
_LINKS = ("previous", "hash")
COLUMNS = (
    *(
        "record",
        "time",
        "run",
        "step",
        "document",
        "sensitivity",
        "sensitivity_source",
        "status",
        "decision",
        "by",
    ),
    *(
        "model",
        "tier",
        "kind",
        "attempt",
        "policy",
        "rule",
        "candidates",
        "rejected",
        "route_reason",
        "review",
    ),
    *(
        "checks",
        "cost_usd",
        "price_date",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "latency_s",
        "reused",
    ),
    *(
        "error",
        "finish_reason",
        "confidence",
        "prompt",
        "prompt_hash",
        "call_hash",
        "answer_hash",
        "question",
    ),
    *(
        "value_hash",
        "note_hash",
        "number",
        "flow",
        "state",
        "ended",
        "budget_usd",
        "parameters_hash",
        "tierwise",
    ),
    *(
        "item",
        "shadow",
        "scope",
        "removed",
        "records",
        "scope_run",
        "scope_since",
        "sealed",
        "seal",
        *_LINKS,
    ),
)


class Line(NamedTuple):
    """A record's line in a file, and the digest of what it holds."""

    number: int
    digest: str


@dataclass
class TrailFile:
    """What a file holds: the records of each block, the end record, and what is wrong with the chain."""

    records: int = 0
    blocks: dict[str, list[Line]] = field(default_factory=dict)
    end: Record | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def scope(self) -> Scope:
        """What the file was to hold."""
        end = self.end or {}
        since = None
        with suppress(
            ValueError, TypeError
        ):  # what is wrong with it is a fault of the chain already
            since = (
                datetime.datetime.fromisoformat(end["scope_since"]).timestamp()
                if "scope_since" in end
                else None
            )
        return Scope(end.get("scope_run"), since)

    @property
    def sealed(self) -> int:
        """The number of the ledger's newest seal when the file was written; 0 without one."""
        number = str((self.end or {}).get("sealed"))
        return int(number) if number.isdecimal() else 0


def write_trail(
    file: IO[str], blocks: Iterable[Block], scope: Scope, last: Seal | None, form: Format
) -> tuple[int, str]:
    """Write records and the end record; how many records there are, and the hash of the last line.

    `last` is the newest seal of the ledger: a later look at the ledger has to find it again.
    """
    write = _jsonl(file) if form == "jsonl" else _csv(file)
    number = 0
    head = START
    for number, record in enumerate((record for block in blocks for record in block.records), 1):  # noqa: B007
        head = write(record, head)
    since = (
        None
        if scope.since is None
        else datetime.datetime.fromtimestamp(scope.since, datetime.UTC).isoformat()
    )
    end = {
        "record": "end",
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "records": number,
        "scope_run": scope.run,
        "scope_since": since,
        "sealed": last.number if last else 0,
        "seal": last.hash if last else START,
    }
    return number, write(end, head)


def read_trail(path: Path) -> TrailFile:
    """Read a file back and check its chain. Raises Misuse when it is no such file."""
    found = TrailFile()
    before = START
    last = 0
    for line, record in _rows(path):
        if isinstance(record, str):
            found.faults.append(f"line {line}: {record}")
            continue
        content = {name: value for name, value in record.items() if name != "hash"}
        if record.get("hash") != digest(content):
            found.faults.append(f"line {line} was changed: its hash does not fit what it holds")
        if record.get("previous") != before:
            place = f"line {last}" if last else "the start"
            found.faults.append(
                f"line {line} does not follow {place}: a line was removed, added, changed or moved"
            )
        if found.end:
            found.faults.append(f"line {line} comes after the end record")
        before = str(record.get("hash"))
        last = line
        bare = {name: value for name, value in content.items() if name not in _LINKS}
        if bare.get("record") == "end":
            found.end = bare
        else:
            found.records += 1
            found.blocks.setdefault(block_name(bare), []).append(Line(line, digest(bare)))
    if found.end is None:
        found.faults.append(
            f"the file ends after line {last} without its end record: lines are missing"
        )
    elif found.end.get("records") not in (found.records, str(found.records)):
        found.faults.append(
            f"the end record counts {found.end.get('records')} records, there are {found.records}"
        )
    return found


def _signed(record: Record, previous: str) -> dict[str, Any]:
    content = {**{k: v for k, v in record.items() if v is not None}, "previous": previous}
    return {**content, "hash": digest(content)}


def _jsonl(file: IO[str]) -> Any:
    def write(record: Record, previous: str) -> str:
        signed = _signed(record, previous)
        file.write(json.dumps(signed) + "\n")
        return str(signed["hash"])

    return write


def _csv(file: IO[str]) -> Any:
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()

    def write(record: Record, previous: str) -> str:
        signed = _signed(record, previous)
        writer.writerow(cells(signed))
        return str(signed["hash"])

    return write


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The lines of a file: a record, or why it is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if file.read(1) == "{":
                file.seek(0)
                yield from _json_rows(file)
            else:
                file.seek(0)
                yield from _csv_rows(file, path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Misuse(f"{path}: cannot be read as an audit trail: {error}") from None


def _json_rows(file: IO[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, text in enumerate(file, 1):
        try:
            row = json.loads(text)
        except json.JSONDecodeError:
            yield number, "is not a whole line of JSON"
            continue
        yield number, row if isinstance(row, dict) else "is not a record"


def _csv_rows(file: IO[str], path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = csv.DictReader(file, restkey="surplus", restval="")
    if not set(_LINKS) <= set(reader.fieldnames or ()):
        raise Misuse(f"{path}: is no audit trail; `tierwise audit export` writes one")
    for row in reader:
        yield reader.line_num, {name: value for name, value in row.items() if value}
