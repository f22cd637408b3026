"""A classifier's two files: the weights (`.skops`, which unlike a pickle can't run code) and a JSON head."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tierwise.errors import ConfigError
from tierwise.gateway.learned.classifier import Classifier, ClassifierMetadata
from tierwise.text.files import write_atomically
from tierwise.text.terms import RECIPE, Terms

_REMEDY = "`tierwise train STEP` makes it anew"
_TRUSTED: list[str] = []  # plain lists, strings and arrays of numbers need no trust
_ARRAYS = ("rarity", "weights", "bias")
_STRINGS = ("words", "characters", "seen")


def trained_file(root: Path, model: str) -> Path:
    """Where the weights of a learned model of the catalog are kept in a project."""
    return root / "learned" / f"{model}.skops"


def save(classifier: Classifier, path: Path) -> ClassifierMetadata:
    """Write the weights to `path` and the head beside it, with the ending `.json`; returns the head.

    The head goes last: a crash in between leaves a pair that `load` refuses.
    """
    import numpy
    import skops.io

    terms = classifier.terms
    data = skops.io.dumps(
        {
            "words": "\n".join(
                terms.words
            ),  # one string: every item of a list would be an entry of its own
            "characters": "\n".join(terms.characters),
            "seen": "\n".join(sorted(classifier.seen)),
            "rarity": numpy.asarray(terms.rarity),
            "weights": classifier.weights,
            "bias": numpy.asarray(classifier.bias),
        }
    )
    head = replace(classifier.head, file_hash=hashlib.sha256(data).hexdigest())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
    described = json.dumps(asdict(head), indent=2, ensure_ascii=False)
    write_atomically(path.with_suffix(".json"), f"{described}\n")
    return head


def read_metadata(path: Path) -> ClassifierMetadata:
    """The head of the classifier in `path`; loads neither its weights nor scikit-learn.

    Raises ConfigError when it is missing or damaged, or when the classifier was trained by another version
    of scikit-learn or of tierwise, whose answers might differ from the certified ones.
    """
    from pydantic import TypeAdapter, ValidationError

    beside = path.with_suffix(".json")
    try:
        head = TypeAdapter(ClassifierMetadata).validate_json(beside.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"this classifier's head is missing; {_REMEDY}", path=beside) from None
    except (OSError, ValidationError) as error:
        raise ConfigError(
            f"not the head of a classifier: {error}; {_REMEDY}", path=beside
        ) from None
    if head.scikit_learn != (here := version("scikit-learn")):
        raise ConfigError(
            f"trained with scikit-learn {head.scikit_learn}, here is {here}; {_REMEDY}", path=beside
        )
    if head.recipe != RECIPE:
        raise ConfigError(
            f"trained by another version of tierwise ('{head.recipe}'); {_REMEDY}", path=beside
        )
    return head


def load(path: Path) -> Classifier:
    """The classifier in `path`. Raises ConfigError like `read_metadata`, and when the weights are not its own.

    A file with anything in it but strings and arrays of numbers is refused; nothing in it is ever run.
    """
    head = read_metadata(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"this classifier's weights can't be read ({error}); {_REMEDY}", path=path
        ) from None
    if hashlib.sha256(data).hexdigest() != head.file_hash:
        raise ConfigError(
            f"damaged, or not the weights that the head beside it describes; {_REMEDY}", path=path
        )
    parts = _parts(data, path)
    words = parts["words"].split("\n")
    characters = parts["characters"].split("\n")
    size = len(words) + len(characters)
    labels = len(head.labels)
    if [parts[name].shape for name in _ARRAYS] != [(size,), (size, labels), (labels,)]:
        raise ConfigError(f"its parts don't fit each other; {_REMEDY}", path=path)
    terms = Terms(words, characters, parts["rarity"].tolist())
    return Classifier(
        head, terms, parts["weights"], parts["bias"].tolist(), parts["seen"].split("\n")
    )


def _parts(data: bytes, path: Path) -> dict[str, Any]:
    import numpy
    import skops.io

    try:
        parts: dict[str, Any] = skops.io.loads(data, trusted=_TRUSTED)
    except Exception as error:  # noqa: BLE001 - a forged file can make the reader fail in any way
        raise ConfigError(f"refused: {error}; {_REMEDY}", path=path) from None
    named = isinstance(parts, dict) and set(parts) == {*_ARRAYS, *_STRINGS}
    if not (
        named
        and all(isinstance(parts[name], str) for name in _STRINGS)
        and all(
            isinstance(parts[name], numpy.ndarray) and parts[name].dtype.kind == "f"
            for name in _ARRAYS
        )
    ):
        raise ConfigError(
            f"refused: it holds other things than a classifier's numbers; {_REMEDY}", path=path
        )
    return parts
