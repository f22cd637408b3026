"""The manifest of a run, by which worker processes elsewhere join it.

The run's owner writes it into the run's folder. It holds no text of documents. A worker that would
decide otherwise than the run's owner is refused.
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
from tierwise.engine import SPOOL, StepRunner
from tierwise.errors import Misuse
from tierwise.policy.budget import Limit
from tierwise.records import canonical_hash
from tierwise.text.files import write_atomically


def write_manifest(
    folder: Path, flow_run_id: str, engine: StepRunner, run: RunContext
) -> None:
    """Write the manifest for the processes that share this folder."""
    demoted = [
        [step, models, reason] for (step, models), reason in run.policy.demoted.items()
    ]
    retry = None
    if run.retry:
        retry = {"run_id": run.retry.run_id, "again": sorted(run.retry.again)}
    manifest = {
        "run": run.id,
        "files": _files_hash(engine),
        "workers": engine.project.scale.workers,
        "unavailable": dict(run.policy.unavailable),
        "demoted": demoted,
        "limits": [asdict(limit) for limit in run.budget.limits],
        "fresh_since": run.fresh_since,
        "deadline": run.deadline,
        "patience_s": run.patience_s,
        "order": run.order,
        "retry": retry,
        "transport": run.transport,
        "detached": run.detached,
        "is_continued": run.is_continued,
    }
    write_atomically(
        folder / f"{flow_run_id}.json", json.dumps(manifest, default=str), private=True
    )


def find_manifest(root: Path, flow_run_id: str) -> Path:
    """Return the manifest of a flow run that is under way. Raises Misuse when there is none."""
    manifest = next((root / SPOOL).glob(f"*/{flow_run_id}.json"), None)
    if manifest is None:
        raise Misuse(
            f"{root / SPOOL} holds no run for this flow run: "
            "steps run inside `with recorded_run():`, a run that is over asks nothing more, "
            "and a worker elsewhere has to share this folder"
        )
    return manifest


def join_run(path: Path, engine: StepRunner) -> RunContext:
    """Return the run as this process works for it.

    There are no top-ups in a worker process: where the rules say `when_empty: pause`, documents
    are deferred. Raises Misuse when this process would decide otherwise than the run's owner.
    """
    manifest = json.loads(path.read_text(encoding="utf-8"))
    _refuse_if_different(engine, manifest)
    demoted = {
        (step, tuple(models)): reason for step, models, reason in manifest["demoted"]
    }
    policy = replace(
        engine.policy, demoted=demoted, unavailable=manifest["unavailable"]
    )
    limits = [
        Limit(limit["subject"], Decimal(limit["usd"]), limit["per"])
        for limit in manifest["limits"]
    ]
    retry = None
    if manifest["retry"]:
        again = frozenset(manifest["retry"]["again"])
        # Its documents matter only to reading, which the owner does.
        retry = Retry(manifest["retry"]["run_id"], frozenset(), again)
    return RunContext(
        id=manifest["run"],
        policy=policy,
        budget=engine.ledger.run_budget(limits),
        fresh_since=manifest["fresh_since"],
        deadline=manifest["deadline"],
        patience_s=manifest["patience_s"],
        order=manifest["order"],
        retry=retry,
        transport=manifest["transport"],
        detached=manifest["detached"],
        is_continued=manifest["is_continued"],
    )


def _refuse_if_different(engine: StepRunner, manifest: Mapping[str, Any]) -> None:
    where = f"this worker's project at {engine.project.root}"
    workers = engine.project.scale.workers
    if manifest["files"] != _files_hash(engine):
        raise Misuse(
            f"{where} has other routing rules or prompts than the run; "
            "bring it up to date and restart it"
        )
    unavailable = engine.policy.unavailable
    for name in unavailable.keys() - manifest["unavailable"].keys():
        raise Misuse(f"{where} cannot use {name}, as the run may: {unavailable[name]}")
    if manifest["workers"] != workers:
        raise Misuse(
            f"{where} has workers = {workers}, the run {manifest['workers']}; "
            "set TIERWISE_WORKERS alike"
        )


def _files_hash(engine: StepRunner) -> str:
    """Return the SHA-256 (hex) of the catalog, the rules, the certificates and the prompts."""
    prompts = {prompt.name: prompt.hash for prompt in engine.project.prompts}
    return canonical_hash([replace(engine.policy, demoted={}).hash, prompts])
