"""An export as files: train.jsonl, validation.jsonl, and export.json, which says what they are made of."""

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
from tierwise.export.collect import Example, Export, Wanted

TRAIN = "train.jsonl"
VALIDATION = "validation.jsonl"
MANIFEST = "export.json"


def refuse_to_overwrite(folder: Path) -> None:
    """Raises Misuse where an export stands already."""
    for name in (TRAIN, VALIDATION, MANIFEST):
        if (folder / name).exists():
            raise Misuse(
                f"{folder / name} is there already; name another folder with --output, or overwrite by --force"
            )


def write_export(export: Export, wanted: Wanted, policy_hash: str, folder: Path) -> dict[str, Any]:
    """Write the files and give what export.json says; it comes last, so without it an export is not whole.

    There is no validation.jsonl where no document is held out. Raises Misuse when the folder cannot be written.
    """
    parts = {TRAIN: export.train, VALIDATION: export.validation}
    bodies = {name: _lines(examples) for name, examples in parts.items() if examples}
    hashes = {name: hashlib.sha256(body).hexdigest() for name, body in bodies.items()}
    told = {**manifest(export, wanted, policy_hash), "files": hashes}
    bodies[MANIFEST] = (json.dumps(told, indent=2, ensure_ascii=False, default=str) + "\n").encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (TRAIN, VALIDATION, MANIFEST):
            (folder / name).unlink(missing_ok=True)
        for name, body in bodies.items():
            (folder / name).write_bytes(body)
    except OSError as error:
        raise Misuse(
            f"{folder}: cannot be written: {error.strerror}; name another folder"
        ) from None
    return told


def manifest(export: Export, wanted: Wanted, policy_hash: str) -> dict[str, Any]:
    """Where an export comes from, as plain data: step, prompt, schema, whose answers, what was left out and why."""
    answers = [example.answer for example in export.examples]
    models = Counter(" + ".join(sorted(answer.models)) or "a person" for answer in answers)
    return {
        "step": export.step.name,
        "prompt": export.prompt.label,
        "prompt_hash": export.prompt.hash,
        "parameters": dict(export.parameters),
        "schema": dict(export.schema),
        "policy": policy_hash,
        "wanted": {**asdict(wanted), "sources": [str(path) for path in wanted.sources]},
        "train": len(export.train),
        "validation": len(export.validation),
        "answers_of": dict(models.most_common()),
        "persons": dict(
            Counter(answer.person for answer in answers if answer.person).most_common()
        ),
        "left_out": dict(export.left_out),
        "date": datetime.date.today().isoformat(),
        "tierwise": __version__,
    }


def _lines(examples: Sequence[Example]) -> bytes:
    return "".join(f"{example.line}\n" for example in examples).encode("utf-8", "backslashreplace")
