"""A sentence encoder that knows a few words by their meaning, as real files and as a catalog entry."""

from __future__ import annotations

from pathlib import Path

import numpy

from tests.kit import encoders
from tests.kit.word_encoder import AXES, OTHER

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *AXES)


def write_encoder(folder: Path, scale: float = 1.0) -> None:
    """Write model.onnx and tokenizer.json; another `scale` of unknown words makes other weights."""
    folder.mkdir(parents=True, exist_ok=True)
    table = numpy.zeros((len(WORDS), 3), dtype=numpy.float32)
    for place, word in enumerate(WORDS):
        if word in AXES:
            table[place, AXES[word]] = 1
    table[WORDS.index("[UNK]"), OTHER] = scale
    encoders.write_encoder(folder / "model.onnx", table)
    encoders.write_tokenizer(folder / "tokenizer.json", WORDS)


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
