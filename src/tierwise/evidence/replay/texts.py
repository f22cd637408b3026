"""The texts of recorded items, as a few latent terms each.

Latent semantic analysis (Deerwester and others 1990): a singular value decomposition of the TF-IDF
weights of all texts. Texts on one subject become neighbours, without a label. The decomposition
sees no score and no cost, so it may use the texts of measured items too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.errors import ConfigError
from tierwise.evidence.replay.outcomes import Key, OutcomeTable, named_cells
from tierwise.text.rows import read_rows
from tierwise.text.terms import vectorisers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierwise.evidence.replay.outcomes import Floats

_MOST_TERMS = 50  # latent ones
_ANY_STEP = ""  # of a text that is the same in each step
Texts = Mapping[Key, str]


def read_texts(path: Path | str) -> Texts:
    """Read the texts of items: `.csv` or `.csv.gz` with `item,text`, or JSON Lines.

    A column `step` says in which step an item has the text; without it, in all. An item may have
    several rows with the same text, so a file of outcomes with a column `text` will do. In JSON
    Lines, `id` is as good as `item`. Raises ConfigError with file and line.
    """
    path = Path(path)
    texts: dict[Key, str] = {}
    lines: dict[Key, int] = {}
    for line, key, text in _rows(path):
        if not key[1]:
            raise ConfigError("item is empty; name it", path=path, line=line)
        if not text.strip():
            message = f"item '{key[1]}' has an empty text; fill it in"
            raise ConfigError(message, path=path, line=line)
        if texts.setdefault(key, text) != text:
            message = (
                f"item '{key[1]}' has another text on line {lines[key]}; "
                "remove one, or add a column 'step'"
            )
            raise ConfigError(message, path=path, line=line)
        lines.setdefault(key, line)
    if len(set(texts.values())) < 2:
        message = "has fewer than two different texts; nothing is to be learned from it"
        raise ConfigError(message, path=path)
    return texts


def with_terms(
    path: Path, texts: Texts, *tables: OutcomeTable
) -> tuple[OutcomeTable, ...]:
    """Return the tables with the latent terms of their items' texts.

    `path` is the file of the texts. Raises ConfigError for an item without a text.
    """
    import numpy

    different = list(dict.fromkeys(texts.values()))
    terms = latent_terms(different)
    places = {text: place for place, text in enumerate(different)}
    with_their_terms = []
    for table in tables:
        rows = [places[_text_of(path, texts, table, key)] for key in table.items]
        with_their_terms.append(replace(table, terms=terms[numpy.array(rows, int)]))
    return tuple(with_their_terms)


def latent_terms(texts: list[str]) -> Floats:
    """Return the latent terms (texts, terms) of two or more texts.

    The first term, which most texts share, has a standard deviation of 1 at most.
    """
    import numpy
    from sklearn.utils.extmath import randomized_svd

    weights = vectorisers().fit_transform(texts)
    count = min(_MOST_TERMS, len(texts) - 1, weights.shape[1])
    # a fixed state: the same texts give the same terms
    left, strengths, _ = randomized_svd(weights, n_components=count, random_state=0)
    terms = left * strengths
    terms -= terms.mean(axis=0)
    spread = float(terms.std(axis=0).max()) or 1.0
    scaled: Floats = (terms / spread).astype(numpy.float64)
    return scaled


def _text_of(path: Path, texts: Texts, table: OutcomeTable, key: Key) -> str:
    step, item = key
    text = texts.get(key) or texts.get((_ANY_STEP, item))
    if text is None:
        message = (
            f"has no text of item '{item}' (step {step}) of {table.path}; add it, "
            "or leave the item out there"
        )
        raise ConfigError(message, path=path)
    return text


def _rows(path: Path) -> Iterator[tuple[int, Key, str]]:
    """Yield the line, the step and item, and the text of each row."""
    if path.suffix in (".csv", ".gz"):
        rows = named_cells(path, ("item", "text"), also=("step",), kind="file of texts")
        for line, cells in rows:
            key = (cells.get("step", _ANY_STEP), cells["item"])
            yield line, key, cells["text"]
        return
    for line, row in read_rows(path):
        if isinstance(row, ConfigError):
            raise row
        item = row.get("item", row.get("id"))
        text = row.get("text")
        if not isinstance(item, str | int) or not isinstance(text, str):
            message = "needs the fields item (or id) and text; add them"
            raise ConfigError(message, path=path, line=line)
        yield line, (str(row.get("step") or _ANY_STEP), str(item)), text
