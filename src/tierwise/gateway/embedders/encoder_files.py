"""The files of an embedder on this machine: downloaded, verified, and converted where need be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tierwise.errors import ModelUnavailable
from tierwise.gateway.local.weights import (
    Notify,
    Progress,
    fetch_weights,
    weights_hash,
    weights_path,
    weights_present,
)
from tierwise.policy.embedders import EmbedderEntry


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    """An ONNX model and its tokenizer, both verified."""

    model: Path
    tokenizer: Path


def missing(entry: EmbedderEntry, env: Mapping[str, str]) -> str | None:
    """Return which file is missing or not verified, with the remedy; None if all are here."""
    for file in entry.files():
        if weights_present(file, env):
            continue
        own_file = file.own_file(env)
        if own_file and not own_file.is_file():
            return f"there is no file {own_file}"
        if own_file:
            return f"{own_file} is not verified; run `tierwise fetch {entry.name}`"
        return f"its files are not here; run `tierwise fetch {entry.name}`"
    return None


def fetch(
    entry: EmbedderEntry,
    env: Mapping[str, str],
    progress: Progress | None,
    notify: Notify | None,
) -> None:
    """Download and verify the files that are not here. Raises WeightsError."""
    for file in entry.files():
        fetch_weights(file, env, progress, notify)


def ready_files(entry: EmbedderEntry, env: Mapping[str, str]) -> EncoderFiles:
    """Return the files to load. They must be here. Raises WeightsError."""
    assert entry.weights is not None and entry.tokenizer is not None  # noqa: S101, PT018
    return EncoderFiles(
        weights_path(entry.weights, env), weights_path(entry.tokenizer, env)
    )


def file_hashes(entry: EmbedderEntry, env: Mapping[str, str]) -> list[str]:
    """Return the SHA-256 of each file. Raises ModelUnavailable when a file of the user's is away."""
    hashes = []
    for file in entry.files():
        digest = weights_hash(file, env)
        if digest is None:
            raise ModelUnavailable("its files are not here", model=entry.name)
        hashes.append(digest)
    return hashes
