"""A classifier's two files: weights (`.skops`, which cannot run code) and metadata (`.json`)."""

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

_REMEDY = "`tierwise train STEP` makes a new one"
_TRUSTED: list[str] = []  # plain lists, strings and arrays of numbers need no trust
_ARRAYS = ("rarity", "weights", "bias")
_STRINGS = ("words", "characters", "seen")


def trained_file(root: Path, model: str) -> Path:
    """Return the path of a learned model's weights in a project."""
    return root / "learned" / f"{model}.skops"


def save(classifier: Classifier, path: Path) -> ClassifierMetadata:
    """Write the weights to `path` and the metadata beside it as `.json`; return the metadata.

    The metadata is written last: a crash in between leaves a pair that `load` refuses.
    """
    import numpy
    import skops.io

    terms = classifier.terms
    parts = {
        # one string a vocabulary, as each item of a list would be an entry of its own
        "words": "\n".join(terms.words),
        "characters": "\n".join(terms.characters),
        "seen": "\n".join(sorted(classifier.seen)),
        "rarity": numpy.asarray(terms.rarity),
        "weights": classifier.weights,
        "bias": numpy.asarray(classifier.bias),
    }
    data = skops.io.dumps(parts)
    metadata = replace(classifier.metadata, file_hash=hashlib.sha256(data).hexdigest())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
    text = json.dumps(asdict(metadata), indent=2, ensure_ascii=False)
    write_atomically(path.with_suffix(".json"), f"{text}\n")
    return metadata


def read_metadata(path: Path) -> ClassifierMetadata:
    """Read the metadata of the classifier in `path`, without its weights and scikit-learn.

    Raises ConfigError when it is missing or damaged, or when the classifier was trained by another
    version of scikit-learn or tierwise, whose answers might differ from the certified ones.
    """
    from pydantic import TypeAdapter, ValidationError

    metadata_path = path.with_suffix(".json")
    try:
        metadata = TypeAdapter(ClassifierMetadata).validate_json(
            metadata_path.read_bytes()
        )
    except FileNotFoundError:
        message = f"this classifier's metadata is missing; {_REMEDY}"
        raise ConfigError(message, path=metadata_path) from None
    except (OSError, ValidationError) as error:
        message = f"not the metadata of a classifier: {error}; {_REMEDY}"
        raise ConfigError(message, path=metadata_path) from None
    installed = version("scikit-learn")
    if metadata.scikit_learn != installed:
        message = (
            f"trained with scikit-learn {metadata.scikit_learn}, here is {installed}"
        )
        raise ConfigError(f"{message}; {_REMEDY}", path=metadata_path)
    if metadata.recipe != RECIPE:
        message = (
            f"trained by another version of tierwise ('{metadata.recipe}'); {_REMEDY}"
        )
        raise ConfigError(message, path=metadata_path)
    return metadata


def load(path: Path) -> Classifier:
    """Load the classifier in `path`.

    A file with anything in it but strings and arrays of numbers is refused; nothing in it is ever
    run. Raises ConfigError as `read_metadata` does, and when the weights are not its own.
    """
    metadata = read_metadata(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        message = f"this classifier's weights can't be read ({error}); {_REMEDY}"
        raise ConfigError(message, path=path) from None
    if hashlib.sha256(data).hexdigest() != metadata.file_hash:
        message = f"damaged, or not the weights that the metadata beside it describes; {_REMEDY}"
        raise ConfigError(message, path=path)
    parts = _parts(data, path)
    words = parts["words"].split("\n")
    characters = parts["characters"].split("\n")
    size = len(words) + len(characters)
    labels = len(metadata.labels)
    shapes = [parts[name].shape for name in _ARRAYS]
    if shapes != [(size,), (size, labels), (labels,)]:
        raise ConfigError(f"its parts don't fit each other; {_REMEDY}", path=path)
    return Classifier(
        metadata,
        terms=Terms(words, characters, parts["rarity"].tolist()),
        weights=parts["weights"],
        bias=parts["bias"].tolist(),
        seen=parts["seen"].split("\n"),
    )


def _parts(data: bytes, path: Path) -> dict[str, Any]:
    import skops.io

    try:
        parts: dict[str, Any] = skops.io.loads(data, trusted=_TRUSTED)
    except Exception as error:  # noqa: BLE001 - a forged file can make the reader fail in any way
        raise ConfigError(f"refused: {error}; {_REMEDY}", path=path) from None
    if not _has_expected_parts(parts):
        message = f"refused: it has other parts than a classifier's numbers; {_REMEDY}"
        raise ConfigError(message, path=path)
    return parts


def _has_expected_parts(parts: Any) -> bool:
    import numpy

    if not isinstance(parts, dict) or set(parts) != {*_ARRAYS, *_STRINGS}:
        return False
    if not all(isinstance(parts[name], str) for name in _STRINGS):
        return False
    arrays = [parts[name] for name in _ARRAYS]
    return all(
        isinstance(array, numpy.ndarray) and array.dtype.kind == "f" for array in arrays
    )
