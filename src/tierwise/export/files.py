"""An export as files: train.jsonl, validation.jsonl, and their origin in export.json."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tierwise import __version__
from tierwise.errors import Misuse
from tierwise.export.collect import Export, ExportFilter, TrainingExample
from tierwise.text.private import open_private, private_folder

TRAIN = "train.jsonl"
VALIDATION = "validation.jsonl"
MANIFEST = "export.json"


def refuse_to_overwrite(folder: Path) -> None:
    """Raise Misuse where an export exists already."""
    for name in (TRAIN, VALIDATION, MANIFEST):
        if (folder / name).exists():
            raise Misuse(
                f"{folder / name} is there already; name another folder with --output, "
                "or overwrite by --force"
            )


def write_export(
    export: Export, wanted: ExportFilter, policy_hash: str, folder: Path
) -> dict[str, Any]:
    """Write the files and return the content of export.json.

    That file comes last, so an export without it is incomplete. There is no validation.jsonl where
    no document is held out. Raises Misuse when the folder cannot be written.
    """
    contents: dict[str, bytes] = {}
    if export.train:
        contents[TRAIN] = _encode_examples(export.train)
    if export.validation:
        contents[VALIDATION] = _encode_examples(export.validation)
    hashes = {
        name: hashlib.sha256(content).hexdigest() for name, content in contents.items()
    }
    description = {**manifest(export, wanted, policy_hash), "files": hashes}
    text = json.dumps(description, indent=2, ensure_ascii=False, default=str)
    contents[MANIFEST] = f"{text}\n".encode()
    try:
        private_folder(folder)
        # first all of an earlier export, so that none of its files remains among new ones
        for name in (TRAIN, VALIDATION, MANIFEST):
            (folder / name).unlink(missing_ok=True)
        for name, content in contents.items():
            with open(folder / name, "wb", opener=open_private) as file:
                file.write(content)
    except OSError as error:
        raise Misuse(
            f"{folder}: cannot be written: {error.strerror}; name another folder"
        ) from None
    return description


def manifest(export: Export, wanted: ExportFilter, policy_hash: str) -> dict[str, Any]:
    """Return the origin of an export as plain data: step, prompt, schema, models and so on."""
    models: Counter[str] = Counter()
    judgements: Counter[str] = Counter()
    for example in export.examples:
        answer = example.answer
        models[" + ".join(sorted(answer.models)) or "a person"] += 1
        if answer.judgement:
            judgements[answer.judgement] += 1
    sources = [str(path) for path in wanted.sources]
    return {
        "step": export.step.name,
        "prompt": export.prompt.label,
        "prompt_hash": export.prompt.hash,
        "parameters": dict(export.parameters),
        "schema": dict(export.schema),
        "policy": policy_hash,
        "wanted": {**asdict(wanted), "sources": sources},
        "train": len(export.train),
        "validation": len(export.validation),
        "answers_of": dict(models.most_common()),
        **_fields_of(export.examples),
        "persons": dict(judgements.most_common()),
        "left_out": dict(export.left_out),
        "date": datetime.date.today().isoformat(),
        "tierwise": __version__,
    }


def _fields_of(examples: Sequence[TrainingExample]) -> dict[str, Any]:
    """Return by field how many of its values are from which model; empty for other steps.

    A value that a person wrote counts as a person's.
    """
    counts: dict[str, Counter[str]] = {}
    for example in examples:
        for name, source in example.answer.sources.items():
            of_field = counts.setdefault(name, Counter())
            of_field["a person" if source.is_reviewer else source.model] += 1
    if not counts:
        return {}
    return {
        "fields_of": {name: dict(each.most_common()) for name, each in counts.items()}
    }


def _encode_examples(examples: Sequence[TrainingExample]) -> bytes:
    lines = [f"{example.line}\n" for example in examples]
    # a document may have half a character (a lone surrogate), which UTF-8 cannot express
    return "".join(lines).encode("utf-8", "backslashreplace")
