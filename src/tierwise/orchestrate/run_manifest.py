"""A run in several processes: its owner leaves a note in the run's folder, and workers elsewhere join by it.

The note holds no text of documents. A worker that would decide otherwise than the run's owner is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from tierwise.cascade import RunContext
from tierwise.cascade.known_outcomes import Retry
from tierwise.engine import Engine
from tierwise.errors import Misuse
from tierwise.policy.budget import Limit
from tierwise.records import canonical_hash

SPOOL = Path(".tierwise/spool")  # below the project's root


def leave_note(folder: Path, flow_run_id: str, engine: Engine, run: RunContext) -> None:
    """Tell the processes that share this folder what the run is."""
    retry = run.retry and {"run_id": run.retry.run_id, "again": sorted(run.retry.again)}
    note = {
        "run": run.id,
        "files": _files(engine),
        "workers": engine.project.scale.workers,
        "unavailable": dict(run.policy.unavailable),
        "demoted": [[step, models, why] for (step, models), why in run.policy.demoted.items()],
        "limits": [asdict(limit) for limit in run.budget.limits],
        "fresh_since": run.fresh_since,
        "deadline": run.deadline,
        "retry": retry,
    }
    draft = folder / f".{flow_run_id}"
    draft.write_text(json.dumps(note, default=str), encoding="utf-8")
    draft.replace(folder / f"{flow_run_id}.json")


def find_note(root: Path, flow_run_id: str) -> Path:
    """The note of a flow run that goes on. Raises Misuse when there is none."""
    found = next((root / SPOOL).glob(f"*/{flow_run_id}.json"), None)
    if found is None:
        raise Misuse(
            f"{root / SPOOL} holds no run for this flow run: steps run inside `with recorded_run():`, "
            "a run that is over asks nothing more, and a worker elsewhere has to share this folder"
        )
    return found


def join(note: Path, engine: Engine) -> RunContext:
    """The run as this process works for it. Raises Misuse when this process would decide otherwise than its owner.

    Nobody is asked for more money from here: where the rules say `when_empty: pause`, documents wait.
    """
    told = json.loads(note.read_text(encoding="utf-8"))
    policy = replace(
        engine.policy,
        demoted={(step, tuple(models)): why for step, models, why in told["demoted"]},
        unavailable=told["unavailable"],
    )
    _refuse_if_different(engine, told)
    limits = [
        Limit(limit["subject"], Decimal(limit["usd"]), limit["per"]) for limit in told["limits"]
    ]
    retry = told["retry"]
    return RunContext(
        id=told["run"],
        policy=policy,
        budget=engine.ledger.run_budget(limits),
        fresh_since=told["fresh_since"],
        deadline=told["deadline"],
        retry=Retry(retry["run_id"], frozenset(), frozenset(retry["again"])) if retry else None,
    )


def _refuse_if_different(engine: Engine, told: Mapping[str, Any]) -> None:
    where = f"this worker's project at {engine.project.root}"
    workers = engine.project.scale.workers
    if told["files"] != _files(engine):
        raise Misuse(
            f"{where} has other routing rules or prompts than the run; bring it up to date and restart it"
        )
    for name in engine.policy.unavailable.keys() - told["unavailable"].keys():
        raise Misuse(
            f"{where} cannot use {name}, as the run may: {engine.policy.unavailable[name]}"
        )
    if told["workers"] != workers:
        raise Misuse(
            f"{where} has workers = {workers}, the run {told['workers']}; set TIERWISE_WORKERS alike"
        )


def _files(engine: Engine) -> str:
    """SHA-256 (hex) of what decides and what is asked: catalog, rules, certificates and prompts."""
    prompts = {prompt.name: prompt.hash for prompt in engine.prompts}
    return canonical_hash([replace(engine.policy, demoted={}).hash, prompts])
