"""Recorded outcomes: a CSV with a row for each item and model, read into arrays and checked to be complete."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from tierwise.errors import ConfigError, Misuse
from tierwise.text.files import read_errors
from tierwise.text.rows import csv_cells, wrong_width

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    Floats = NDArray[float64]

COLUMNS = ("item", "step", "prompt_tokens", "model", "tier", "score", "cost_usd")
Key = tuple[str, str]  # step, item: the same document in another step is another decision


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcomes:
    """What some models made of the same items: a row an item, a column a model, cheapest model first."""

    path: Path
    items: tuple[Key, ...]
    prompt_tokens: Floats  # (items,)
    models: tuple[str, ...]
    tiers: tuple[str, ...]  # of the models
    scores: Floats  # (items, models), 0 to 1
    costs: Floats  # (items, models), USD

    def __len__(self) -> int:
        return len(self.items)

    @property
    def steps(self) -> tuple[str, ...]:
        """The step of each item."""
        return tuple(step for step, _ in self.items)

    def part(self, places: Sequence[int]) -> Outcomes:
        """The items at these places, in this order."""
        places = list(places)
        return replace(
            self,
            items=tuple(self.items[place] for place in places),
            prompt_tokens=self.prompt_tokens[places],
            scores=self.scores[places],
            costs=self.costs[places],
        )

    def without(self, items: Collection[Key]) -> Outcomes:
        """All items but these."""
        return self.part([place for place, key in enumerate(self.items) if key not in items])

    def draw(self, count: int, seed: int = 0) -> Outcomes:
        """`count` items by chance, spread over the steps and, within each, over the prompt lengths.

        Sorted by step and length, the items fall into `count` runs of equal size; each gives one. Looks at
        no score, and does not depend on the order of the file. Raises Misuse when there are not as many.
        """
        import numpy

        if not 1 <= count <= len(self):
            raise Misuse(f"cannot draw {count} labels: {self.path} has {len(self)} items")
        order = sorted(
            range(len(self)),
            key=lambda i: (self.items[i][0], self.prompt_tokens[i], self.items[i][1]),
        )
        ends = numpy.linspace(0, len(self), count + 1).astype(int)
        chosen = numpy.random.default_rng(seed).integers(ends[:-1], ends[1:])
        return self.part([order[place] for place in chosen])


class _Row(NamedTuple):
    line: int
    prompt_tokens: float
    score: float
    cost: float


def read_outcomes(path: Path | str, *, models: Sequence[str] | None = None) -> Outcomes:
    """Read `.csv` or `.csv.gz` with the columns in COLUMNS; others are ignored.

    `models` are the ones that must be there, in their order; without it, whichever are found. An item's
    prompt length is the mean over its models, which may count tokens differently. Raises ConfigError with
    file and line: a missing column or model, a cell that is no number, the same item and model twice.
    """
    path = Path(path)
    table: dict[Key, dict[str, _Row]] = {}
    tiers: dict[str, tuple[str, int]] = {}  # model -> tier, first line
    for line, cells in _rows(path):
        key = (cells["step"], cells["item"])
        model = cells["model"]
        row = _row(path, line, cells)
        tier, first = tiers.setdefault(model, (cells["tier"], line))
        if tier != cells["tier"]:
            message = f"model '{model}' is in tier '{cells['tier']}' here and in '{tier}' on line {first}; correct one"
            raise ConfigError(message, path=path, line=line)
        rows = table.setdefault(key, {})
        if model in rows:
            message = f"item '{key[1]}' has a row for model '{model}' on line {rows[model].line} already; remove one"
            raise ConfigError(message, path=path, line=line)
        rows[model] = row
    _check_models(path, {model: line for model, (_, line) in tiers.items()}, models)
    _check_complete(path, table, tiers)
    return _outcomes(path, table, {model: tier for model, (tier, _) in tiers.items()}, models)


def _outcomes(
    path: Path,
    table: Mapping[Key, Mapping[str, _Row]],
    tiers: Mapping[str, str],
    models: Sequence[str] | None,
) -> Outcomes:
    import numpy

    def mean_cost(model: str) -> float:
        return math.fsum(rows[model].cost for rows in table.values())

    names = tuple(models or sorted(tiers, key=lambda model: (mean_cost(model), model)))
    return Outcomes(
        path=path,
        items=tuple(table),
        prompt_tokens=numpy.array(
            [numpy.mean([row.prompt_tokens for row in rows.values()]) for rows in table.values()]
        ),
        models=names,
        tiers=tuple(tiers[name] for name in names),
        scores=numpy.array([[rows[name].score for name in names] for rows in table.values()]),
        costs=numpy.array([[rows[name].cost for name in names] for rows in table.values()]),
    )


def _check_models(path: Path, found: Mapping[str, int], wanted: Sequence[str] | None) -> None:
    if wanted is None:
        if len(found) < 2:
            message = f"every row is of model '{next(iter(found))}'; routing needs the outcomes of two or more"
            raise ConfigError(message, path=path)
        return
    for model, line in found.items():
        if model not in wanted:
            message = f"model '{model}' is not among the models fitted ({', '.join(wanted)}); leave its rows out"
            raise ConfigError(message, path=path, line=line)
    if missing := [model for model in wanted if model not in found]:
        raise ConfigError(
            f"has no rows of model '{missing[0]}', which was fitted; record its outcomes too",
            path=path,
        )


def _check_complete(
    path: Path, table: Mapping[Key, Mapping[str, _Row]], models: Collection[str]
) -> None:
    for (step, item), rows in table.items():
        if missing := [model for model in models if model not in rows]:
            line = min(row.line for row in rows.values())
            message = f"item '{item}' (step {step}) has no row of model '{missing[0]}'"
            raise ConfigError(
                f"{message}; record its outcome, or leave the item out", path=path, line=line
            )


def _row(path: Path, line: int, cells: Mapping[str, str]) -> _Row:
    def number(column: str, most: float, allowed: str) -> float:
        try:
            value = float(cells[column])
        except ValueError:
            value = math.nan
        if not (0 <= value <= most and math.isfinite(value)):
            message = f"{column} must be {allowed} (found '{cells[column]}')"
            raise ConfigError(f"{message}; correct it, or leave the item out", path=path, line=line)
        return value

    for column in ("item", "step", "model"):
        if not cells[column]:
            raise ConfigError(f"{column} is empty; name it", path=path, line=line)
    tokens = number("prompt_tokens", math.inf, "a number, 0 or more")
    return _Row(
        line,
        tokens,
        number("score", 1, "a number from 0 to 1"),
        number("cost_usd", math.inf, "USD, 0 or more"),
    )


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row with its line and its cells by column, stripped."""
    has_rows = False
    with _read_errors(path), _opened(path) as file:
        rows = csv_cells(path, file)
        _, first = next(rows, (1, []))
        header = [name.strip() for name in first]
        _check_header(path, header)
        for line, cells in rows:
            has_rows = True
            if fault := wrong_width(cells, header):
                raise ConfigError(fault, path=path, line=line)
            stripped = [cell.strip() for cell in cells]
            yield line, dict(zip(header, stripped, strict=True))
    if not has_rows:
        raise ConfigError("has a header and no rows; record some outcomes", path=path)


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Turn the errors of reading a file that may be compressed into ConfigError."""
    with read_errors(path, "file of outcomes"):
        try:
            yield
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            message = f"damaged, or not gzip as its name says: {error}"
            raise ConfigError(message, path=path) from None


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _check_header(path: Path, header: Sequence[str]) -> None:
    needed = f"the header needs {','.join(COLUMNS)}"
    if not any(header):
        raise ConfigError(f"the file is empty; {needed}", path=path)
    if missing := [name for name in COLUMNS if name not in header]:
        raise ConfigError(
            f"has no column '{missing[0]}' (found {', '.join(header)}); {needed}", path=path, line=1
        )
    if twice := [name for name in COLUMNS if header.count(name) > 1]:
        raise ConfigError(f"has two columns '{twice[0]}'; rename or remove one", path=path, line=1)
