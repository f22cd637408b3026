"""The audit trail as a file: JSON Lines or CSV.

Each record carries the hash of the one before; an end record comes last.
"""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Callable, Iterable, Iterator
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
# one column for every field of any record
_FIELDS = (
    "record time run step document sensitivity sensitivity_source status decision by "
    "model tier kind attempt policy rule candidates rejected route_reason review "
    "checks cost_usd price_date prompt_tokens cached_tokens completion_tokens "
    "usage_unclear latency_s reused "
    "error finish_reason confidence prompt prompt_hash call_hash answer_hash question "
    "value_hash note_hash number flow state ended budget_usd parameters_hash tierwise "
    "item shadow scope removed records scope_run scope_since sealed seal "
    "seen request undoes selection settles blind comparison swapped second_hash "
    "served_model transport service_tier cache_write_tokens cache_write_1h_tokens "
    "note price catalog changes alert"
)
COLUMNS = (*_FIELDS.split(), *_LINKS)

# writes a record after the one with the given hash, and returns its own hash
_Write = Callable[[Record, str], str]
# a record, or the reason why a line is none
_Row = dict[str, Any] | str


class TrailLine(NamedTuple):
    """The line of a record in a file, and the digest of its content."""

    number: int
    digest: str


@dataclass
class TrailFile:
    """A file's content: the records of each block, the end record, and the faults of the chain."""

    records: int = 0
    blocks: dict[str, list[TrailLine]] = field(default_factory=dict)
    end: Record | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def scope(self) -> Scope:
        """The part of the ledger that the file was to hold."""
        end = self.end or {}
        since: float | None = None
        # a value that is no time is a fault of the chain already
        with suppress(ValueError, TypeError):
            if "scope_since" in end:
                since = datetime.datetime.fromisoformat(end["scope_since"]).timestamp()
        return Scope(end.get("scope_run"), since)

    @property
    def sealed(self) -> int:
        """The number of the ledger's newest seal when the file was written; 0 without one."""
        end = self.end or {}
        number = str(end.get("sealed"))
        return int(number) if number.isdecimal() else 0


def write_trail(
    file: IO[str],
    blocks: Iterable[Block],
    scope: Scope,
    last: Seal | None,
    form: Format,
) -> tuple[int, str]:
    """Write records and the end record; return the number of records and the hash of the last line.

    `last` is the newest seal of the ledger, which a later verification has to find again.
    """
    write = _jsonl_writer(file) if form == "jsonl" else _csv_writer(file)
    number = 0
    head = START
    for block in blocks:
        for record in block.records:
            head = write(record, head)
            number += 1
    since: str | None = None
    if scope.since is not None:
        since = datetime.datetime.fromtimestamp(scope.since, datetime.UTC).isoformat()
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
    trail = TrailFile()
    previous_hash = START
    previous_line = 0
    for line, record in _read_rows(path):
        if isinstance(record, str):
            trail.faults.append(f"line {line}: {record}")
            continue
        content = {name: value for name, value in record.items() if name != "hash"}
        if record.get("hash") != digest(content):
            trail.faults.append(
                f"line {line} was changed: its hash does not fit its content"
            )
        if record.get("previous") != previous_hash:
            place = f"line {previous_line}" if previous_line else "the start"
            trail.faults.append(
                f"line {line} does not follow {place}: a line was removed, added, changed or moved"
            )
        if trail.end:
            trail.faults.append(f"line {line} comes after the end record")
        # The hash as written, not as computed: a changed line is one fault, not one for every
        # line after it.
        previous_hash = str(record.get("hash"))
        previous_line = line

        # the ledger's own record, without what ties the lines of a file together
        original = {
            name: value for name, value in content.items() if name not in _LINKS
        }
        if original.get("record") == "end":
            trail.end = original
        else:
            trail.records += 1
            lines = trail.blocks.setdefault(block_name(original), [])
            lines.append(TrailLine(line, digest(original)))
    _check_end(trail, previous_line)
    return trail


def _check_end(trail: TrailFile, last_line: int) -> None:
    """Note the fault of a trail that was cut off, which no chain of hashes shows."""
    if trail.end is None:
        trail.faults.append(
            f"the file ends after line {last_line} without its end record: lines are missing"
        )
        return
    counted = trail.end.get("records")
    # CSV has text where JSON has a number.
    if str(counted) != str(trail.records):
        trail.faults.append(
            f"the end record counts {counted} records, there are {trail.records}"
        )


def _link(record: Record, previous: str) -> dict[str, Any]:
    """Return a record with the hash of the one before and its own."""
    content = {name: value for name, value in record.items() if value is not None}
    # Part of the content that is hashed: this is what ties each line to the one before.
    content["previous"] = previous
    return {**content, "hash": digest(content)}


def _jsonl_writer(file: IO[str]) -> _Write:
    def write(record: Record, previous: str) -> str:
        linked = _link(record, previous)
        file.write(json.dumps(linked) + "\n")
        return str(linked["hash"])

    return write


def _csv_writer(file: IO[str]) -> _Write:
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()

    def write(record: Record, previous: str) -> str:
        linked = _link(record, previous)
        writer.writerow(cells(linked))
        return str(linked["hash"])

    return write


def _read_rows(path: Path) -> Iterator[tuple[int, _Row]]:
    """Yield the lines of a file in either format, by number."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            # CSV begins with the name of a column.
            is_json = file.read(1) == "{"
            file.seek(0)
            yield from (
                _read_json_lines(file) if is_json else _read_csv_lines(file, path)
            )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Misuse(f"{path}: cannot be read as an audit trail: {error}") from None


def _read_json_lines(file: IO[str]) -> Iterator[tuple[int, _Row]]:
    for number, text in enumerate(file, 1):
        try:
            row = json.loads(text)
        except json.JSONDecodeError:
            yield number, "is not a whole line of JSON"
            continue
        yield number, row if isinstance(row, dict) else "is not a record"


def _read_csv_lines(file: IO[str], path: Path) -> Iterator[tuple[int, _Row]]:
    # Cells beyond the last column become a field, so that they change the record's digest.
    reader = csv.DictReader(file, restkey="surplus", restval="")
    if not set(_LINKS) <= set(reader.fieldnames or ()):
        raise Misuse(f"{path}: is no audit trail; `tierwise audit export` writes one")
    for row in reader:
        # an empty cell is a field that the record does not have
        record = {name: value for name, value in row.items() if value}
        yield reader.line_num, record
