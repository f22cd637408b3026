"""Which flow runs count as dead: every combination of facts, and the promises about live runs."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.ledger import RunProcess, Sign
from tierwise.orchestrate.liveness import (
    SILENT_S,
    UNKNOWN_SILENT_S,
    Process,
    RunFacts,
    Stage,
    needs_heartbeats,
    verdict,
)

LONG = 10 * UNKNOWN_SILENT_S
SINCE = 1000.0


def recorded(sign: Sign, started_at: float = SINCE + 1) -> RunProcess:
    """A run on record whose process is as the sign says."""
    return RunProcess("flow-run", "run", "running", started_at, sign, "process 7 on a")


FACTS = st.builds(
    RunFacts,
    stage=st.sampled_from(get_args(Stage)),
    is_ours=st.booleans(),
    since=st.just(SINCE),
    age_s=st.floats(0, LONG),
    recorded=st.lists(
        st.builds(
            recorded,
            st.sampled_from(get_args(Sign)),
            st.sampled_from([SINCE - 1, SINCE + 1]),
        ),
        max_size=3,
    ).map(tuple),
    process=st.sampled_from(get_args(Process)),
    silent_s=st.floats(0, LONG),
    heartbeat_s=st.floats(1, 600),
    is_suspended=st.booleans(),
)


@given(FACTS)
def test_what_may_be_alive_is_left_alone(run: RunFacts) -> None:
    """Whatever else is known: a living process, a plain flow, a suspension, a lease elsewhere."""
    assert verdict(replace(run, is_ours=False)) == "leave"
    assert verdict(replace(run, is_suspended=True)) == "leave"
    assert verdict(replace(run, process="alive")) == "leave"
    alive = (*run.recorded, recorded("alive"))
    assert verdict(replace(run, recorded=alive)) == "leave"
    if run.stage != "pending":
        leased = (*run.recorded, recorded("leased"))
        assert verdict(replace(run, recorded=leased)) == "leave"


@given(FACTS)
def test_a_run_that_sends_heartbeats_ends_only_when_its_process_is_known_to_be_dead(
    run: RunFacts,
) -> None:
    heard = replace(run, silent_s=0.0)
    if verdict(heard) == "end":
        assert heard.recorded[-1].sign == "dead"


@given(FACTS)
def test_more_silence_never_brings_a_run_back(run: RunFacts) -> None:
    if verdict(run) == "end":
        assert verdict(replace(run, silent_s=run.silent_s + 1)) == "end"


@given(FACTS)
def test_heartbeats_are_asked_for_where_they_decide(run: RunFacts) -> None:
    """A run that is left now and would be ended after some silence, and no other."""
    if run.stage == "pending":
        assert not needs_heartbeats(run)
        return
    silent = verdict(replace(run, silent_s=LONG * 1000)) == "end"
    assert needs_heartbeats(run) == (silent and verdict(run) == "leave")


@given(FACTS)
def test_a_run_that_was_not_begun_is_queued_again_and_one_that_was_is_ended(
    run: RunFacts,
) -> None:
    allowed = {"leave", "reschedule"} if run.stage == "pending" else {"leave", "end"}
    assert verdict(run) in allowed


@pytest.mark.parametrize("stage", ["running", "paused", "cancelling"])
def test_each_dead_run_is_ended_in_the_end(stage: Stage) -> None:
    """All combinations: only a lease that still counts holds for ever."""
    signs: list[Sign | None] = [*get_args(Sign), None]
    processes: list[Process] = list(get_args(Process))
    for sign, process in product(signs, processes):
        run = RunFacts(
            stage=stage,
            is_ours=True,
            since=SINCE,
            age_s=LONG,
            recorded=(recorded(sign),) if sign else (),
            process=process,
            silent_s=LONG,
        )
        may_live = sign in ("alive", "leased") or process == "alive"
        assert verdict(run) == ("leave" if may_live else "end"), (sign, process)


@pytest.mark.parametrize(
    ("sign", "started_at", "process", "silence"),
    [
        ("dead", SINCE + 1, "unnamed", 0.0),
        # A run that was begun again may be in a process that is not on record yet.
        ("dead", SINCE - 1, "unnamed", SILENT_S),
        ("dead", SINCE - 1, "dead", 0.0),
        ("earlier", SINCE + 1, "unnamed", SILENT_S),
        ("earlier", SINCE + 1, "dead", SILENT_S),
        ("expired", SINCE + 1, "elsewhere", SILENT_S),
        (None, 0.0, "dead", SILENT_S),
        (None, 0.0, "elsewhere", UNKNOWN_SILENT_S),
        (None, 0.0, "unnamed", UNKNOWN_SILENT_S),
    ],
)
def test_the_silence_that_each_kind_of_evidence_needs(
    sign: Sign | None, started_at: float, process: Process, silence: float
) -> None:
    run = RunFacts(
        stage="running",
        is_ours=True,
        since=SINCE,
        age_s=LONG,
        recorded=(recorded(sign, started_at),) if sign else (),
        process=process,
        silent_s=silence,
    )
    assert verdict(run) == "end"
    if silence:
        assert verdict(replace(run, silent_s=silence - 1)) == "leave"
    # Who sends heartbeats less often is waited for longer.
    if silence == SILENT_S:
        assert verdict(replace(run, heartbeat_s=180.0)) == "leave"


@pytest.mark.parametrize(
    ("process", "age_s", "expected"),
    [
        ("alive", LONG, "leave"),
        ("dead", 29.0, "leave"),
        ("dead", 31.0, "reschedule"),
        ("unnamed", 89.0, "leave"),
        ("unnamed", 91.0, "reschedule"),
        ("elsewhere", 599.0, "leave"),
        ("elsewhere", 601.0, "reschedule"),
    ],
)
def test_when_a_run_that_nobody_begins_is_queued_again(
    process: Process, age_s: float, expected: str
) -> None:
    run = RunFacts("pending", is_ours=True, since=SINCE, age_s=age_s, process=process)
    assert verdict(run) == expected
