"""A sentence encoder of a few words as real files: an ONNX model and its tokenizer.

The model looks each word up in a table of three numbers, so words that mean the same have the same vector.
"""

from __future__ import annotations

from pathlib import Path

import numpy

from tests.kit.word_encoder import AXES, OTHER

UNKNOWN = "[UNK]"
WORDS = [UNKNOWN, *AXES]
FLOAT, INT64 = 1, 7  # ONNX's numbers for the types


def write_encoder(folder: Path, scale: float = 1.0) -> None:
    """Write model.onnx and tokenizer.json; another `scale` makes other weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(_model(scale))
    _write_tokenizer(folder / "tokenizer.json")


def entry(folder: Path, name: str = "words") -> str:
    """The catalog's entry of these files."""
    return f"""
  {name}:
    kind: embedder
    tier: local
    dimensions: 3
    window_tokens: 64
    weights: {{file: "{folder}/model.onnx"}}
    tokenizer: {{file: "{folder}/tokenizer.json"}}
"""


def _write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {word: place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))


def _model(scale: float) -> bytes:
    table = numpy.zeros((len(WORDS), 3), dtype=numpy.float32)
    for place, word in enumerate(WORDS):
        table[place, AXES.get(word, OTHER)] = 1
    table[0] *= scale  # what is unknown counts more or less
    initializer = (
        _number(1, table.shape[0])
        + _number(1, table.shape[1])
        + _number(2, FLOAT)
        + _bytes(8, b"table")
        + _bytes(9, table.tobytes())
    )
    node = (
        _bytes(1, b"table")
        + _bytes(1, b"input_ids")
        + _bytes(2, b"last_hidden_state")
        + _bytes(4, b"Gather")
    )
    graph = (
        _bytes(1, node)
        + _bytes(2, b"words")
        + _bytes(5, initializer)
        + _bytes(11, _value(b"input_ids", INT64, 2))
        + _bytes(12, _value(b"last_hidden_state", FLOAT, 3))
    )
    opset = _bytes(1, b"") + _number(2, 13)
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, opset)


def _value(name: bytes, kind: int, axes: int) -> bytes:
    dimensions = b"".join(_bytes(1, _bytes(2, b"n%d" % axis)) for axis in range(axes))
    tensor = _number(1, kind) + _bytes(2, dimensions)
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor))


# Protocol buffers: a field is its number and wire type, then a varint or some bytes with their length.


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
