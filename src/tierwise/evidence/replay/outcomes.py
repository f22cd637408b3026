"""Recorded outcomes: a CSV with a row for each item and model, checked and read into arrays."""

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
    from numpy import float64, object_
    from numpy.typing import NDArray

    Floats = NDArray[float64]
    Words = NDArray[object_]

COLUMNS = ("item", "step", "prompt_tokens", "model", "tier", "score", "cost_usd")
# columns that a file may have: a model's own confidence in its answer, and the answer
CONFIDENCE = "confidence"
ANSWER = "answer"
# step, item: the same document in another step is another decision
Key = tuple[str, str]


@dataclass(frozen=True, eq=False, kw_only=True)
class OutcomeTable:
    """Scores and costs of some models on the same items.

    Each item is a row, each model a column, the cheapest model first.
    """

    path: Path
    items: tuple[Key, ...]
    prompt_tokens: Floats  # (items,)
    models: tuple[str, ...]
    tiers: tuple[str, ...]  # of the models
    scores: Floats  # (items, models), 0 to 1
    costs: Floats  # (items, models), USD
    # (items, models), 0 to 1; nan where a model reported none, None where none ever did
    confidences: Floats | None = None
    answers: Words | None = None  # (items, models); None where the file has none
    terms: Floats | None = None  # (items, terms): latent terms of the texts

    def __len__(self) -> int:
        return len(self.items)

    @property
    def steps(self) -> tuple[str, ...]:
        """The step of each item."""
        return tuple(step for step, _ in self.items)

    def part(self, places: Sequence[int]) -> OutcomeTable:
        """Return the items at these places, in this order."""
        places = list(places)
        confidences = None
        if self.confidences is not None:
            confidences = self.confidences[places]
        answers = None
        if self.answers is not None:
            answers = self.answers[places]
        terms = None
        if self.terms is not None:
            terms = self.terms[places]
        return replace(
            self,
            items=tuple(self.items[place] for place in places),
            prompt_tokens=self.prompt_tokens[places],
            scores=self.scores[places],
            costs=self.costs[places],
            confidences=confidences,
            answers=answers,
            terms=terms,
        )

    def asked_in_turn(self, models: Sequence[int]) -> OutcomeTable:
        """Return the outcomes of a model cascade: the models at these places, one after the other.

        An answer of the second model costs the first one's call too, and so on.
        """
        models = list(models)
        confidences = None
        if self.confidences is not None:
            confidences = self.confidences[:, models]
        answers = None
        if self.answers is not None:
            answers = self.answers[:, models]
        return replace(
            self,
            models=tuple(self.models[model] for model in models),
            tiers=tuple(self.tiers[model] for model in models),
            scores=self.scores[:, models],
            costs=self.costs[:, models].cumsum(axis=1),
            confidences=confidences,
            answers=answers,
        )

    def without(self, items: Collection[Key]) -> OutcomeTable:
        """Return all items but these."""
        places = [place for place, key in enumerate(self.items) if key not in items]
        return self.part(places)

    def draw(self, count: int, seed: int = 0) -> OutcomeTable:
        """Return `count` items drawn by chance, spread over the steps and prompt lengths.

        Sorted by step and length, the items fall into `count` runs of equal size, and each run
        gives one. Scores play no part, nor does the order of the file. Raises Misuse when there are
        fewer items.
        """
        import numpy

        if not 1 <= count <= len(self):
            raise Misuse(
                f"cannot draw {count} labels: {self.path} has {len(self)} items"
            )

        def step_and_length(place: int) -> tuple[str, float, str]:
            step, item = self.items[place]
            tokens = float(self.prompt_tokens[place])
            return step, tokens, item

        order = sorted(range(len(self)), key=step_and_length)
        # run i goes from ends[i] to before ends[i + 1]; none is empty, as count <= len(self)
        ends = numpy.linspace(0, len(self), count + 1).astype(int)
        generator = numpy.random.default_rng(seed)
        drawn = generator.integers(ends[:-1], ends[1:])
        return self.part([order[place] for place in drawn])


class _Row(NamedTuple):
    """One line of the file, in numbers."""

    line: int
    prompt_tokens: float | None  # None where the cell is empty
    score: float
    cost: float
    confidence: float | None
    answer: str


class _Tier(NamedTuple):
    """A model's tier, and the first line that names it."""

    name: str
    line: int


def read_outcomes(
    path: Path | str, *, models: Sequence[str] | None = None
) -> OutcomeTable:
    """Read a `.csv` or `.csv.gz` with the columns in COLUMNS, and `confidence` and `answer`.

    Other columns are ignored. `models` are the ones that must be there, in their order; None takes
    all in the file. An item's prompt length is the mean over its models, which may count tokens
    differently. `prompt_tokens` may be empty in all rows, but not in some of them. Raises
    ConfigError with file and line: a missing column or model, a cell that is not a number, an item
    and model that are there twice.
    """
    path = Path(path)
    table: dict[Key, dict[str, _Row]] = {}
    tiers: dict[str, _Tier] = {}  # of the models
    for line, cells in named_cells(path, COLUMNS, also=(CONFIDENCE, ANSWER)):
        row = _row(path, line, cells)
        key = (cells["step"], cells["item"])
        model = cells["model"]
        tier = tiers.setdefault(model, _Tier(cells["tier"], line))
        if tier.name != cells["tier"]:
            message = (
                f"model '{model}' is in tier '{cells['tier']}' here "
                f"and in '{tier.name}' on line {tier.line}; correct one"
            )
            raise ConfigError(message, path=path, line=line)
        rows = table.setdefault(key, {})
        if model in rows:
            message = (
                f"item '{key[1]}' has a row for model '{model}' "
                f"on line {rows[model].line} already; remove one"
            )
            raise ConfigError(message, path=path, line=line)
        rows[model] = row
    _check_models(path, tiers, models)
    _check_complete(path, table, tiers)
    _check_lengths(path, table)
    return _arrays(path, table, tiers, models)


def _arrays(
    path: Path,
    table: Mapping[Key, Mapping[str, _Row]],
    tiers: Mapping[str, _Tier],
    models: Sequence[str] | None,
) -> OutcomeTable:
    import numpy

    # without an order from the caller: the cheapest first, as the router tries them
    if models is None:
        totals: dict[str, float] = {}
        for name in tiers:
            costs_of_model = [rows[name].cost for rows in table.values()]
            totals[name] = math.fsum(costs_of_model)
        models = sorted(tiers, key=lambda name: (totals[name], name))
    prompt_tokens = []
    scores = []
    costs = []
    confidences = []
    answers = []
    for rows in table.values():
        counts = [row.prompt_tokens or 0.0 for row in rows.values()]
        prompt_tokens.append(numpy.mean(counts))
        scores.append([rows[name].score for name in models])
        costs.append([rows[name].cost for name in models])
        confidences.append([rows[name].confidence for name in models])
        answers.append([rows[name].answer for name in models])
    # None becomes nan
    confidence_array = numpy.array(confidences, dtype=float)
    answer_array = numpy.array(answers, dtype=object)  # they may be long
    has_confidences = not numpy.isnan(confidence_array).all()
    has_answers = bool((answer_array != "").any())
    return OutcomeTable(
        path=path,
        items=tuple(table),
        prompt_tokens=numpy.array(prompt_tokens),
        models=tuple(models),
        tiers=tuple(tiers[name].name for name in models),
        scores=numpy.array(scores),
        costs=numpy.array(costs),
        confidences=confidence_array if has_confidences else None,
        answers=answer_array if has_answers else None,
    )


def _check_models(
    path: Path, tiers: Mapping[str, _Tier], wanted: Sequence[str] | None
) -> None:
    if wanted is None:
        if len(tiers) < 2:
            only = next(iter(tiers))
            message = f"every row is of model '{only}'; routing needs the outcomes of two or more"
            raise ConfigError(message, path=path)
        return
    for model, tier in tiers.items():
        if model not in wanted:
            message = (
                f"model '{model}' is not among the models fitted ({', '.join(wanted)}); "
                "leave its rows out"
            )
            raise ConfigError(message, path=path, line=tier.line)
    for model in wanted:
        if model not in tiers:
            message = f"has no rows of model '{model}', which was fitted; record its outcomes too"
            raise ConfigError(message, path=path)


def _check_complete(
    path: Path, table: Mapping[Key, Mapping[str, _Row]], models: Collection[str]
) -> None:
    for (step, item), rows in table.items():
        for model in models:
            if model not in rows:
                message = (
                    f"item '{item}' (step {step}) has no row of model '{model}'; "
                    "record its outcome, or leave the item out"
                )
                # no line has the missing row: the item's first one is shown
                line = min(row.line for row in rows.values())
                raise ConfigError(message, path=path, line=line)


def _check_lengths(path: Path, table: Mapping[Key, Mapping[str, _Row]]) -> None:
    """Raise ConfigError where `prompt_tokens` is empty in some rows and not in others."""
    empty: list[int] = []  # lines
    filled: list[int] = []
    for rows in table.values():
        for row in rows.values():
            lines = empty if row.prompt_tokens is None else filled
            lines.append(row.line)
    if empty and filled:
        message = (
            f"prompt_tokens is empty here and not on line {min(filled)}; "
            "fill it in, or empty it in all rows"
        )
        raise ConfigError(message, path=path, line=min(empty))


def _row(path: Path, line: int, cells: Mapping[str, str]) -> _Row:
    def number(column: str, most: float, allowed: str) -> float:
        try:
            value = float(cells[column])
        except ValueError:
            value = math.nan  # refused below, as "nan" in the file is
        if not (0 <= value <= most and math.isfinite(value)):
            message = (
                f"{column} must be {allowed} (found '{cells[column]}'); "
                "correct it, or leave the item out"
            )
            raise ConfigError(message, path=path, line=line)
        return value

    for column in ("item", "step", "model"):
        if not cells[column]:
            raise ConfigError(f"{column} is empty; name it", path=path, line=line)
    prompt_tokens = None
    if cells["prompt_tokens"]:
        prompt_tokens = number("prompt_tokens", math.inf, "a number, 0 or more")
    confidence = None
    if cells.get(CONFIDENCE):
        confidence = number(CONFIDENCE, 1, "a number from 0 to 1, or empty")
    return _Row(
        line=line,
        prompt_tokens=prompt_tokens,
        score=number("score", 1, "a number from 0 to 1"),
        cost=number("cost_usd", math.inf, "USD, 0 or more"),
        confidence=confidence,
        answer=cells.get(ANSWER, ""),
    )


def named_cells(
    path: Path,
    columns: Sequence[str],
    *,
    also: Sequence[str] = (),
    kind: str = "file of outcomes",
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row of a CSV file with its line and its cells by column, stripped.

    The file may be packed. It needs `columns`, and may have those of `also`. Raises ConfigError.
    """
    has_rows = False
    with _read_errors(path, kind), _open(path) as file:
        rows = csv_cells(path, file)
        _, first = next(rows, (1, []))
        header = [name.strip() for name in first]
        _check_header(path, header, columns, also)
        for line, cells in rows:
            has_rows = True
            if fault := wrong_width(cells, header):
                raise ConfigError(fault, path=path, line=line)
            stripped = [cell.strip() for cell in cells]
            yield line, dict(zip(header, stripped, strict=True))
    if not has_rows:
        raise ConfigError("has a header and no rows; record some outcomes", path=path)


@contextmanager
def _read_errors(path: Path, kind: str) -> Iterator[None]:
    """Turn the errors of reading a file that may be compressed into ConfigError."""
    with read_errors(path, kind):
        try:
            yield
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            message = f"damaged, or not gzip as its name says: {error}"
            raise ConfigError(message, path=path) from None


def _open(path: Path) -> IO[str]:
    # newline="": the CSV reader takes line ends inside of quotes as they are
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _check_header(
    path: Path, header: Sequence[str], columns: Sequence[str], also: Sequence[str]
) -> None:
    needed = f"the header needs {','.join(columns)}"
    if not any(header):
        raise ConfigError(f"the file is empty; {needed}", path=path)
    for name in columns:
        if name not in header:
            message = f"has no column '{name}' (found {', '.join(header)}); {needed}"
            raise ConfigError(message, path=path, line=1)
    for name in (*columns, *also):
        if header.count(name) > 1:
            message = f"has two columns '{name}'; rename or remove one"
            raise ConfigError(message, path=path, line=1)
