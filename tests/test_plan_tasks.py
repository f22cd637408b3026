"""What a flow does besides its steps while it is planned: it runs for real, so it is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prefect import flow, task

from tasks.classify import classify
from tests.kit.projects import make_project, model
from tierwise import redact
from tierwise.orchestrate.dry_run import tasks_run_for_real

FLOW = """
from pathlib import Path
from prefect import flow, task, unmapped
from tasks.classify import classify
from tierwise import read_documents, recorded_run

@task
def tell_the_desk(text):
    raise SystemExit("only where the flow calls it")

@flow
def told(source: Path = Path("inbox"), tell: bool = False):
    with recorded_run() as run:
        batches = read_documents(source, sensitivity="internal")
        classify.map(batches, labels=unmapped(["a", "b"]), descriptions=unmapped({}))
        if tell:
            tell_the_desk("done")
    return run.summary()
"""


@task
def tell() -> None: ...


@flow
def beneath() -> None: ...


@flow
def mixed() -> None:
    redact.map([])
    classify.map([])
    for _ in [tell() for _ in range(2)]:
        beneath()


@flow
def steps_alone() -> None:
    classify.map([])


def test_plain_tasks_and_flows_that_a_flow_calls_are_told_apart_from_steps() -> None:
    assert set(tasks_run_for_real(mixed)) == {"tell", "beneath"}
    assert tasks_run_for_real(steps_alone) == ()


def planned(root: Path, prefect_server: str, *arguments: str) -> str:
    """What the command says; in a process of its own, as this one knows the flows of another project."""
    command = [sys.executable, "-m", "tierwise", "plan", *arguments]
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "PREFECT_API_URL": prefect_server},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_plan_names_what_runs_for_real(prefect_server: str, tmp_path: Path) -> None:
    """Before it begins; a flow of steps alone is not talked about."""
    root = make_project(
        tmp_path / "project",
        *(model(name, "http://127.0.0.1:9") for name in ("small", "large")),
    )
    (root / "flows" / "told.py").write_text(FLOW)
    (root / "inbox").mkdir()
    (root / "inbox" / "a.txt").write_text("My parcel has not arrived.")
    assert (
        "Runs for real while planning, as only steps are planned: tell_the_desk"
        in planned(root, prefect_server, "told")
    )
    support_inbox = ("support_inbox", "--source", "inbox")
    assert "for real" not in planned(root, prefect_server, *support_inbox)
