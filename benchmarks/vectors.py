"""Vectors of texts, kept on disk: a benchmark that draws hundreds of times embeds each text once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from tierwise.gateway.embedders import open_embedder
from tierwise.policy.catalog import load_catalog
from tierwise.records import Sensitivity, text_hash
from tierwise.text.files import write_atomically
from tierwise.text.vectors import Encoder

FOLDER = Path(".tierwise/benchmark-vectors")
_AT_ONCE = 200  # texts from one saving to the next


class KeptVectors:
    """An encoder whose vectors are kept in a file for each identity."""

    def __init__(self, encoder: Encoder) -> None:
        self.identity = encoder.identity
        self._encoder = encoder
        self._path = FOLDER / f"{encoder.identity}.npz"
        self._vectors: dict[str, Any] = {}
        if self._path.exists():
            with numpy.load(self._path) as kept:
                names = kept["hashes"].tolist()
                self._vectors = dict(zip(names, kept["vectors"], strict=True))

    def embed(
        self, texts: Sequence[str], *, sensitivity: Sensitivity = "restricted"
    ) -> Any:
        hashes = [text_hash(text) for text in texts]
        missing = {
            digest: text
            for digest, text in zip(hashes, texts, strict=True)
            if digest not in self._vectors
        }
        new = list(missing)
        for start in range(0, len(new), _AT_ONCE):
            some = new[start : start + _AT_ONCE]
            print(f"embedding {start + len(some)} of {len(new)} texts", flush=True)
            vectors = self._encoder.embed(
                [missing[digest] for digest in some], sensitivity=sensitivity
            )
            self._vectors.update(zip(some, vectors, strict=True))
            self._save()
        return numpy.array([self._vectors[digest] for digest in hashes])

    def _save(self) -> None:
        import io

        file = io.BytesIO()
        numpy.savez(
            file,
            hashes=numpy.array(list(self._vectors)),
            vectors=numpy.array(list(self._vectors.values())),
        )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, file.getvalue())


def kept_encoders(names: Sequence[str]) -> dict[str, KeptVectors]:
    """Return the embedders of this repository's catalog, by name. Fetch them before."""
    catalog = load_catalog(Path("routing_rules/catalog.yaml"))
    return {
        name: KeptVectors(open_embedder(catalog, name, os.environ)) for name in names
    }
