"""CSV records with their lines; a quote out of place breaks one record, not the rest.

A quoted cell may have line ends. One stray quote therefore turns all rows up to the next quote
into one cell, and the result is valid CSV. `CsvReader` refuses such a record when its lines look
like rows (`looks_like_rows`), and reads on after the first of them.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tierwise.errors import TierwiseError

# A record is compared with the good ones before it.
_MOST_COMPARED = 20
# Lines after a broken record that are left out with it, as they do not look like rows.
_MOST_LEFT_OUT_AFTER = 20
# How many lines of a cell must look like rows, by the evidence in the other columns.
_LINES_WITH_NEXT_NUMBERS = 2  # 5, then 6, 7, …
_LINES_WITH_RISING_NUMBERS = 4
_LINES_WITH_SAME_KIND = 5  # numbers, codes, or words that the column had before
_LINES_WITHOUT_EVIDENCE = {2: 8, 3: 5}  # only the number of cells; by the table's width
_LINES_OF_A_WIDE_TABLE = 3
# One line in so many may look otherwise, such as a row with a cell too few.
_LINES_FOR_A_MISFIT = 20
# Lines that are read again, for each character of the file; a file of nothing but stray quotes
# would otherwise take quadratic time.
_MOST_READ_AGAIN = 20
_LONGEST_NUMBER = 30  # digits
_NO_PROSE = ("number", "code", "address")
_ESCAPE = re.compile(r'\\(["\\])')


@dataclass(frozen=True, slots=True)
class CsvRecord:
    """One record: a blank line has no cells."""

    first_line: int
    last_line: int
    cells: list[str]


@dataclass(frozen=True, slots=True)
class BrokenRecord:
    """Lines that are no record of the table. Those after `left_out_to` are read again."""

    first_line: int
    last_line: int
    left_out_to: int
    fault: str

    def explain(self) -> str:
        """Say which lines are one record, and why that is wrong."""
        if self._end == self.first_line:
            return f"the row is broken: {self.fault}; check its quotes"
        return (
            f"lines {self.first_line} to {self._end} "
            f"({self._end - self.first_line + 1:,} lines) are one row, which is broken: "
            f"{self.fault}; check its quotes"
        )

    def describe(self) -> str:
        """Explain it, and say which lines are left out."""
        if self._end == self.first_line:
            return f"line {self.first_line}: {self.explain()}"
        if self.left_out_to == self.first_line:
            left_out = f"line {self.first_line} is left out"
        else:
            left_out = f"lines {self.first_line} to {self.left_out_to} are left out"
        return f"{self.explain()}; {left_out}, reading goes on after that"

    @property
    def _end(self) -> int:
        return max(self.last_line, self.left_out_to)


class CsvReader:
    """Reads records one at a time; the first one is the header.

    An error in place of a line, such as a line that is too long, is raised when it is reached.
    """

    def __init__(
        self,
        lines: Iterable[str | TierwiseError],
        *,
        delimiter: str = ",",
        most_characters: int = sys.maxsize,
        first_line: int = 1,
    ) -> None:
        """`most_characters` limits one record; `first_line` is the number of the first line."""
        # Process-wide, and 128 KiB by default: many documents are longer.
        longest_cell = max(csv.field_size_limit(), min(most_characters, 2**31 - 1))
        csv.field_size_limit(longest_cell)
        self._lines = _Lines(iter(lines), most_characters, first_line)
        self._delimiter = delimiter
        self._rows = csv.reader(self._lines, delimiter=delimiter, strict=True)
        self._width = 0
        self._has_spaces = False
        self._has_multiline_cells = False
        self._recent: deque[list[str]] = deque(maxlen=_MOST_COMPARED)

    def __iter__(self) -> CsvReader:
        """Return the reader itself."""
        return self

    def __next__(self) -> CsvRecord | BrokenRecord:
        """Return the next record. Raises an error that takes the place of a line."""
        self._lines.begin()
        try:
            cells = next(self._rows)
        except csv.Error:
            if self._lines.at_end:
                fault = (
                    f"a quote that opens on line {self._lines.first} is never closed"
                )
            else:
                fault = "text follows the quote that closes a cell"
            return self._escaped_record() or self._broken(fault)
        except _Interrupted as interruption:
            return self._broken(str(interruption))
        # Width 0: no header so far, as blank lines may come before it.
        if not self._width:
            self._set_header(cells)
            return self._record(cells)
        if len(self._lines.taken) == 1:
            if len(cells) == self._width:
                self._recent.append(cells)
            return self._record(cells)
        return self._check_multiline(cells)

    def _set_header(self, cells: list[str]) -> None:
        self._width = len(cells)
        behind_delimiters = cells[1:]
        self._has_spaces = any(cell.startswith(" ") for cell in behind_delimiters)

    def _record(self, cells: list[str]) -> CsvRecord:
        first_line = self._lines.first
        last_line = self._lines.last
        return CsvRecord(first_line, last_line, cells)

    def _check_multiline(self, cells: list[str]) -> CsvRecord | BrokenRecord:
        """Return a record of several lines as it is, or as broken."""
        fitted = without_empty_end(cells, self._width)
        if len(fitted) != self._width:
            fault = f"it has {len(fitted)} cells where the header has {self._width}"
            return self._escaped_record() or self._broken(fault)
        like_rows = self._lines_like_rows()
        if like_rows:
            fault = (
                f"a quote that opens on line {self._lines.first} takes in {like_rows:,} lines "
                "that look like rows"
            )
            return self._escaped_record() or self._broken(fault)
        self._has_multiline_cells = True
        self._recent.append(fitted)
        return self._record(cells)

    def _escaped_record(self) -> CsvRecord | None:
        r"""Read the record again with `\"` for a quote inside a cell; None if that fails too."""
        taken = list(self._lines.taken)
        if not any('\\"' in line for _, line in taken):
            return None
        if not self._lines.may_read_again(taken):
            return None
        # Lines are taken again: with `\"` as a quote inside, the record may end on another one.
        self._lines.put_back(taken)
        self._lines.begin()
        lines = (_ESCAPE.sub(_double_quote, line) for line in self._lines)
        try:
            cells = next(csv.reader(lines, delimiter=self._delimiter, strict=True))
        except (csv.Error, _Interrupted):
            cells = []
        fitted = without_empty_end(cells, self._width)
        if len(fitted) == self._width and not self._lines_like_rows():
            self._recent.append(fitted)
            return self._record(fitted)
        # Back to the lines of the record as it was without escapes.
        self._lines.put_back(self._lines.taken)
        self._lines.begin()
        for _ in taken:
            next(self._lines)
        return None

    # Where reading goes on

    def _broken(self, fault: str) -> BrokenRecord:
        """Leave out the first line, and those after it that do not look like rows."""
        taken = list(self._lines.taken)
        first = taken[0]
        last = taken[-1]
        left_out_to = last[0]
        # In a table of one column, a letter's lines cannot be told from rows.
        is_letter = self._width == 1 and self._has_multiline_cells
        if not is_letter and self._lines.may_read_again(taken[1:]):
            self._lines.put_back(taken[1:])
            left_out_to = first[0]
            # A cell that was meant to go on: its other lines are no rows.
            goes_on = first[1].count('"') % 2 == 1
            end = last[0]
            if goes_on:
                end += _MOST_LEFT_OUT_AFTER
            while self._next_is_no_row(end):
                left_out_to += 1
        return BrokenRecord(first[0], last[0], left_out_to, fault)

    def _next_is_no_row(self, end: int) -> bool:
        """Take the next line, up to the number `end`, if no row can begin with it."""
        following = self._lines.peek()
        if following is None or following[0] > end:
            return False
        if self._may_begin_row(following[1]):
            return False
        self._lines.begin()
        next(self._lines)
        return True

    def _may_begin_row(self, line: str) -> bool:
        """Return False for a line that cannot be a row, or the first line of one."""
        if not line.strip():
            return False
        if self._width == 1:
            return True
        cells = self._split(line, strict=True)
        if cells is not None:
            fitted = without_empty_end(cells, self._width)
            return len(fitted) == self._width and not self._contradicts(fitted)
        # A quote stays open: only the cells before it can be judged.
        cells = self._split(line, strict=False) or []
        before_quote = cells[:-1]
        if not before_quote:
            return line.startswith('"')
        return len(cells) <= self._width and not self._contradicts(before_quote)

    def _contradicts(self, cells: Sequence[str]) -> bool:
        """Return True if the cells are prose or empty where no row before had such cells."""
        if self._looks_spaced(cells):
            return True
        for column, cell in enumerate(cells):
            kind = _kind(cell)
            if kind not in ("text", "empty"):
                continue
            kinds = {_kind(row[column]) for row in self._recent}
            if kinds and kind not in kinds:
                return True
        return False

    # Rows inside of a cell

    def _lines_like_rows(self) -> int:
        """Return the number of the record's lines if they look like rows, else 0."""
        lines = [line for _, line in self._lines.taken]
        if self._width < 2 or len(lines) < 2:
            return 0
        head = self._split(lines[0], strict=False)
        if not head:
            return 0
        open_column = len(head) - 1
        # The first line must be a row as well, if its quote is taken for a character.
        after_quote = head[-1].split(self._delimiter)
        own = self._joined(head[:-1] + after_quote, open_column)
        if own is None:
            return 0
        filled = [line for line in lines[1:] if line.strip()]
        rows: list[list[str]] = []
        for line in filled:
            cells = self._split(line, strict=True) or []
            row = self._joined(cells, open_column)
            # Numbers that count grow longer, so the line before is compared as well.
            others = [*self._recent, own, *rows[-1:]]
            if row and self._resembles(row, others, open_column):
                rows.append(row)
        if not rows:
            return 0
        misfits = len(filled) - len(rows)
        if misfits * _LINES_FOR_A_MISFIT > len(filled):
            return 0
        enough = self._lines_needed(rows, own, open_column)
        return len(rows) if len(rows) >= enough else 0

    def _joined(self, cells: list[str], open_column: int) -> list[str] | None:
        """Return the cells as a row; None if there are too few.

        Too many are a text with delimiters, which lacks its quotes.
        """
        extra = len(cells) - self._width
        if extra < 0:
            return None
        end = open_column + extra + 1
        text = self._delimiter.join(cells[open_column:end])
        return [*cells[:open_column], text, *cells[end:]]

    def _resembles(
        self, row: Sequence[str], others: Sequence[Sequence[str]], open_column: int
    ) -> bool:
        """Return True if each cell of a line is of a kind that its column has in other rows."""
        if self._looks_spaced(row):
            return False
        for column, cell in enumerate(row):
            if column == open_column:
                if not cell.strip():
                    return False
            elif not _is_alike(cell, [other[column] for other in others]):
                return False
        return True

    def _lines_needed(
        self, rows: Sequence[Sequence[str]], own: Sequence[str], open_column: int
    ) -> int:
        """Return how many lines like rows are too many, by the evidence in the other columns."""
        needed = _LINES_WITHOUT_EVIDENCE.get(self._width, _LINES_OF_A_WIDE_TABLE)
        for column in range(self._width):
            if column == open_column:
                continue
            before = [row[column] for row in self._recent]
            here = [own[column], *(row[column] for row in rows)]
            if _counts_otherwise(before, here):
                return sys.maxsize
            needed_here = _lines_needed_by(before, here)
            if needed_here is not None:
                needed = min(needed, needed_here)
        return needed

    def _looks_spaced(self, cells: Sequence[str]) -> bool:
        """Return True if a space follows a delimiter, as in prose, and the header has none."""
        if self._has_spaces:
            return False
        return any(cell.startswith(" ") for cell in cells[1:])

    def _split(self, line: str, *, strict: bool) -> list[str] | None:
        """Return the cells of one line by itself; None if it is no whole record."""
        rows = csv.reader(
            [line.rstrip("\r\n")], delimiter=self._delimiter, strict=strict
        )
        try:
            return next(rows, [])
        except csv.Error:
            return None


def without_empty_end(cells: list[str], width: int) -> list[str]:
    """Return the cells without empty ones beyond the header's number."""
    end = len(cells)
    while end > width and not cells[end - 1].strip():
        end -= 1
    return cells[:end]


class _Interrupted(Exception):
    """A record cannot be read to its end."""


class _Lines:
    """Numbered lines that can be put back. Blank or not, each line of the file counts."""

    def __init__(
        self,
        lines: Iterator[str | TierwiseError],
        most_characters: int,
        first_line: int,
    ) -> None:
        self._lines = lines
        self._most = most_characters
        self._number = first_line - 1
        self._waiting: deque[tuple[int, str | TierwiseError]] = deque()
        self._characters = 0
        self._read_again = 0
        self._size = 0
        self.taken: list[tuple[int, str]] = []
        self.at_end = False

    def begin(self) -> None:
        """Begin a record."""
        self.taken = []
        self._size = 0
        self.at_end = False

    @property
    def first(self) -> int:
        """The number of the record's first line."""
        return self.taken[0][0]

    @property
    def last(self) -> int:
        """The number of the record's last line."""
        return self.taken[-1][0]

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        number, line = self._take()
        if isinstance(line, TierwiseError):
            if not self.taken:
                raise line
            # It is raised when the next record begins with it.
            self._waiting.appendleft((number, line))
            raise _Interrupted("the line after it cannot be read")
        # The first line is taken however long it is: else reading would never go on.
        if self.taken and self._size + len(line) > self._most:
            self._waiting.appendleft((number, line))
            raise _Interrupted(f"it has more than {self._most:,} characters")
        self.taken.append((number, line))
        self._size += len(line)
        return line

    def _take(self) -> tuple[int, str | TierwiseError]:
        if self._waiting:
            return self._waiting.popleft()
        try:
            line = next(self._lines)
        except StopIteration:
            self.at_end = True
            raise
        self._number += 1
        if isinstance(line, str):
            self._characters += len(line)
        return self._number, line

    def peek(self) -> tuple[int, str] | None:
        """Return the next line without taking it; None at the end or before an error."""
        if not self._waiting:
            try:
                self._waiting.append(self._take())
            except StopIteration:
                return None
        number, line = self._waiting[0]
        return (number, line) if isinstance(line, str) else None

    def may_read_again(self, lines: Sequence[tuple[int, str]]) -> bool:
        """Return False where too much of the file was read again already."""
        again = self._read_again + _characters_in(lines)
        # The floor lets short files be read again as often as they need.
        most = _MOST_READ_AGAIN * max(self._characters, 100_000)
        return again <= most

    def put_back(self, lines: Sequence[tuple[int, str]]) -> None:
        """Put lines back, to be read again."""
        self._read_again += _characters_in(lines)
        # extendleft reverses the order, so it is reversed before.
        self._waiting.extendleft(reversed(lines))


def _characters_in(lines: Sequence[tuple[int, str]]) -> int:
    return sum(len(line) for _, line in lines)


def _double_quote(escape: re.Match[str]) -> str:
    # An escaped backslash is matched only so that a quote after it is not taken for escaped.
    if escape[1] == '"':
        return '""'
    return escape[0]


def _kind(cell: str) -> str:
    """Return what a cell is: empty, a number, an address, a code, a word or a text of words."""
    content = cell.strip()
    if not content:
        return "empty"
    if content.isdecimal():
        return "number"
    if any(character.isspace() for character in content):
        return "text"
    if "@" in content or "://" in content:
        return "address"
    if any(character.isdecimal() for character in content):
        return "code"
    return "word"


def _is_alike(cell: str, seen: Sequence[str]) -> bool:
    """Return True if a cell is of a kind that was seen; a number or code also of its length."""
    kind = _kind(cell)
    if kind in ("word", "text"):
        return any(_kind(other) in ("word", "text") for other in seen)
    if kind == "address":
        return any(_kind(other) == kind for other in seen)
    # Some of a table's codes may have no letter in them.
    alike: tuple[str, ...] = (kind,)
    if any(_kind(other) == "code" for other in seen):
        alike = ("number", "code")
    lengths = [len(other.strip()) for other in seen if _kind(other) in alike]
    if not lengths:
        return False
    # One character of tolerance: after 99 comes 100.
    shortest = min(lengths) - 1
    longest = max(lengths) + 1
    return shortest <= len(cell.strip()) <= longest


def _lines_needed_by(before: Sequence[str], here: Sequence[str]) -> int | None:
    """Return how many lines like rows are too many, by one column's cells; None if they say nothing.

    `before` are those of earlier records, `here` the record's own and those of its lines.
    """
    numbers = _numbers(here)
    if numbers:
        if all(later == earlier + 1 for earlier, later in pairwise(numbers)):
            return _LINES_WITH_NEXT_NUMBERS
        if all(later > earlier for earlier, later in pairwise(numbers)):
            return _LINES_WITH_RISING_NUMBERS
    known = set(before)
    if all(_kind(cell) in _NO_PROSE or cell in known for cell in here[1:]):
        return _LINES_WITH_SAME_KIND
    return None


def _counts_otherwise(before: Sequence[str], here: Sequence[str]) -> bool:
    """Return True if the lines' numbers do not continue a column that counts upwards.

    Such a list is part of a letter: `1,chair` and `2,lamp` in the record of the number 12.
    """
    numbers = _numbers([*before, *here])
    if not numbers:
        return False
    # The records before, and the number of the record itself.
    earlier = numbers[: len(before) + 1]
    # Nothing before it: a list within it may only not repeat its number.
    if len(earlier) == 1:
        return numbers[0] in numbers[1:]
    if any(second <= first for first, second in pairwise(earlier)):
        return False
    return any(second <= first for first, second in pairwise(numbers))


def _numbers(cells: Sequence[str]) -> list[int]:
    """Return the cells as whole numbers; none if one of them is not."""
    numbers: list[int] = []
    for cell in cells:
        content = cell.strip()
        if not content.isdecimal() or len(content) > _LONGEST_NUMBER:
            return []
        numbers.append(int(content))
    return numbers
