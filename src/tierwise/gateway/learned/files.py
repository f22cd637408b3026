"""A classifier's two files: weights (`.skops`, which cannot run code) and metadata (`.json`).

A classifier of TF-IDF alone has the parts `words`, `characters`, `rarity`, `weights`, `bias` and
`seen`. One with embedders has `seen`, and `weights_0`, `bias_0`, `weights_1`, … for its members; TF-IDF
adds the first three.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tierwise.errors import ConfigError
from tierwise.gateway.learned.classifier import (
    EMBEDDED_RECIPE,
    Classifier,
    ClassifierMetadata,
)
from tierwise.gateway.learned.members import (
    EncoderMember,
    Member,
    TermsMember,
)
from tierwise.text.files import write_atomically
from tierwise.text.terms import RECIPE, Terms
from tierwise.text.vectors import Encoder

_REMEDY = "`tierwise train STEP` makes a new one"
_TRUSTED: list[str] = []  # plain lists, strings and arrays of numbers need no trust
_TERMS_STRINGS = ("words", "characters")


def trained_file(root: Path, model: str) -> Path:
    """Return the path of a learned model's weights in a project."""
    return root / "learned" / f"{model}.skops"


def save(classifier: Classifier, path: Path) -> ClassifierMetadata:
    """Write the weights to `path` and the metadata beside it as `.json`; return the metadata.

    The metadata is written last: a crash in between leaves a pair that `load` refuses.
    """
    import numpy
    import skops.io

    strings = {"seen": "\n".join(sorted(classifier.seen))}
    arrays: dict[str, Any] = {}
    names = _numbers(classifier.metadata)
    for member, (weights, bias) in zip(classifier.members, names, strict=True):
        if isinstance(member, TermsMember):
            # one string a vocabulary, as each item of a list would be an entry of its own
            strings["words"] = "\n".join(member.terms.words)
            strings["characters"] = "\n".join(member.terms.characters)
            arrays["rarity"] = numpy.asarray(member.terms.rarity)
        arrays[weights] = member.weights
        arrays[bias] = numpy.asarray(member.bias)
    parts = strings | arrays
    data = skops.io.dumps(parts)
    metadata = replace(classifier.metadata, file_hash=hashlib.sha256(data).hexdigest())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
    fields = asdict(metadata)
    if not metadata.members:
        del fields["members"]  # as in the files of earlier versions
    text = json.dumps(fields, indent=2, ensure_ascii=False)
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
    if metadata.recipe != (EMBEDDED_RECIPE if metadata.members else RECIPE):
        message = (
            f"trained by another version of tierwise ('{metadata.recipe}'); {_REMEDY}"
        )
        raise ConfigError(message, path=metadata_path)
    return metadata


def load(path: Path, encoders: Sequence[Encoder] | None = None) -> Classifier:
    """Load the classifier in `path`.

    A file with anything in it but strings and arrays of numbers is refused; nothing in it is ever
    run. `encoders` are those of its embedders, in any order; a classifier that has embedders cannot
    predict without them. Raises ConfigError as `read_metadata` does, when the weights are not its
    own, and when it was trained with another embedder than the given ones.
    """
    metadata = read_metadata(path)
    if encoders is not None:
        check_embedders(metadata, [encoder.identity for encoder in encoders], path)
    try:
        data = path.read_bytes()
    except OSError as error:
        message = f"this classifier's weights can't be read ({error}); {_REMEDY}"
        raise ConfigError(message, path=path) from None
    if hashlib.sha256(data).hexdigest() != metadata.file_hash:
        message = f"damaged, or not the weights that the metadata beside it describes; {_REMEDY}"
        raise ConfigError(message, path=path)
    parts = _parts(data, path, metadata)
    by_identity = {encoder.identity: encoder for encoder in encoders or ()}
    members: list[Member] = []
    for number, (weights_name, bias_name) in enumerate(_numbers(metadata)):
        weights = parts[weights_name]
        bias = parts[bias_name]
        labels = len(metadata.labels)
        # the rows are those of the vocabulary, or of the embedder's vectors
        if weights.shape[1:] != (labels,) or bias.shape != (labels,):
            raise ConfigError(f"its parts don't fit each other; {_REMEDY}", path=path)
        if metadata.members and not metadata.members[number].is_terms:
            encoder = by_identity.get(metadata.members[number].identity)
            members.append(EncoderMember(encoder, weights, bias.tolist()))
        else:
            terms = _terms(parts, weights, path)
            members.append(TermsMember(terms, weights, bias.tolist()))
    return Classifier(metadata, members, seen=parts["seen"].split("\n"))


def check_embedders(
    metadata: ClassifierMetadata, identities: Sequence[str], path: Path
) -> None:
    """Raise ConfigError unless the embedders are the ones that the classifier was trained with."""
    if sorted(metadata.embedders) == sorted(identities):
        return
    names = [member.embedder for member in metadata.members if not member.is_terms]
    trained_with = " and ".join(names) or "no embedder"
    if identities and len(names) == len(identities):
        change = (
            f"trained with {trained_with}, whose files, settings or address were others then, "
            f"or another embedder ({', '.join(sorted(metadata.embedders))}; "
            f"now {', '.join(sorted(identities))})"
        )
    else:
        change = (
            f"trained with {trained_with}, and the catalog names another `embedder`"
        )
    message = f"{change}; `tierwise train STEP` makes a classifier for the catalog's"
    raise ConfigError(message, path=path.with_suffix(".json"))


def check_terms(metadata: ClassifierMetadata, wanted: bool, path: Path) -> None:
    """Raise ConfigError unless the classifier has TF-IDF exactly where the catalog wants it."""
    if metadata.uses_terms == wanted:
        return
    trained = "with TF-IDF" if metadata.uses_terms else "without TF-IDF"
    message = f"trained {trained}, and the catalog's `terms` says otherwise; {_REMEDY}"
    raise ConfigError(message, path=path.with_suffix(".json"))


def _numbers(metadata: ClassifierMetadata) -> list[tuple[str, str]]:
    """Return the names of each member's arrays: its weights, and its bias."""
    if not metadata.members:
        return [("weights", "bias")]
    return [
        (f"weights_{number}", f"bias_{number}")
        for number in range(len(metadata.members))
    ]


def _parts(data: bytes, path: Path, metadata: ClassifierMetadata) -> dict[str, Any]:
    import skops.io

    try:
        parts: dict[str, Any] = skops.io.loads(data, trusted=_TRUSTED)
    except Exception as error:  # noqa: BLE001 - a forged file can make the reader fail in any way
        raise ConfigError(f"refused: {error}; {_REMEDY}", path=path) from None
    if not _has_expected_parts(parts, metadata):
        message = f"refused: it has other parts than a classifier's numbers; {_REMEDY}"
        raise ConfigError(message, path=path)
    return parts


def _has_expected_parts(parts: Any, metadata: ClassifierMetadata) -> bool:
    import numpy

    strings = ["seen"]
    arrays = [name for pair in _numbers(metadata) for name in pair]
    if metadata.uses_terms:
        strings += _TERMS_STRINGS
        arrays.append("rarity")
    if not isinstance(parts, dict) or set(parts) != {*strings, *arrays}:
        return False
    if not all(isinstance(parts[name], str) for name in strings):
        return False
    return all(
        isinstance(parts[name], numpy.ndarray) and parts[name].dtype.kind == "f"
        for name in arrays
    )


def _terms(parts: dict[str, Any], weights: Any, path: Path) -> Terms:
    """Return the terms that a member's weights belong to."""
    words = parts["words"].split("\n")
    characters = parts["characters"].split("\n")
    size = len(words) + len(characters)
    if len(weights) != size or parts["rarity"].shape != (size,):
        raise ConfigError(f"its parts don't fit each other; {_REMEDY}", path=path)
    return Terms(words, characters, parts["rarity"].tolist())
