"""The purse of a run: held to by many processes at once, and what happens when it is empty."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit.ledgers import DATABASES, RUN, migrated_url, python
from tests.kit.projects import PRICE, RULES, make_project, model
from tests.kit.standin import NO_USAGE, Fault, Standin
from tests.kit.steps import CLASSIFY, GOOD, INVENTED, LABELS, TEXT
from tests.kit.terminal import Terminal
from tierwise.engine import Engine
from tierwise.errors import BudgetExceeded, ConfigError
from tierwise.ledger import Ledger
from tierwise.policy.budget import Limit
from tierwise.project import Project
from tierwise.records import Batch, Document, Outcome

# ---- many processes, several budgets

LIMITS = {"run-1": "0.4", "run-2": "0.5", "day": "0.6", "day team=claims": "0.2"}
PROCESS = """
    import asyncio, pathlib, random, sys
    from decimal import Decimal
    from tests.kit.ledgers import REPLY, attempt
    from tierwise.policy.budget import ReservationRequest
    from tierwise.errors import BudgetExceeded
    from tierwise.ledger import Ledger

    url, root, run_id, process, *limits = sys.argv[1:]
    limits = {name: Decimal(usd) for name, usd in (limit.split(": ") for limit in limits)}
    dice = random.Random(process)

    async def call(ledger, name):
        worst = Decimal(dice.randrange(1, 20_000_000)) / 10**9
        try:
            await ledger.claim(name, reservation=ReservationRequest(id=name, usd=worst, limits=limits))
        except BudgetExceeded:
            return
        await asyncio.sleep(dice.random() / 100)
        if dice.random() < 0.1:
            await ledger.release(name)
            return
        cost = None if dice.random() < 0.1 else (worst * dice.randrange(1000)) / 1000
        await ledger.settle(run_id, attempt(id=name, call_hash=name, cost=cost), REPLY)

    async def worker(ledger, number):
        for n in range(5):
            await call(ledger, f"{process}-{number}-{n}")

    async def main():
        with Ledger.open(url, root=pathlib.Path(root)) as ledger:
            print("ready", flush=True)
            sys.stdin.readline()
            await asyncio.gather(*(worker(ledger, number) for number in range(32)))

    asyncio.run(main())
"""


@pytest.mark.parametrize("database", DATABASES)
def test_no_commit_of_any_process_ever_breaks_a_budget(
    database: str, tmp_path: Path
) -> None:
    """Two runs, of two processes with 32 calls at once each, share a day's limit; one process is killed."""
    url = migrated_url(database, tmp_path)
    with Ledger.open(url, root=tmp_path) as ledger:
        for name in ("run-1", "run-2"):
            ledger.start_run(replace(RUN, id=name))
        processes = []
        for number in range(4):
            run_id = f"run-{number % 2 + 1}"
            names = [run_id, "day", *(["day team=claims"] if run_id == "run-1" else [])]
            limits = [f"{name}: {LIMITS[name]}" for name in names]
            processes.append(
                python(PROCESS, url, str(tmp_path), run_id, str(number), *limits)
            )
        assert [
            process.stdout and process.stdout.readline() for process in processes
        ] == ["ready\n"] * 4
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        while not any(
            state.spent > Decimal("0.02") for state in ledger.budgets.states(["run-2"])
        ):
            time.sleep(0.01)
        processes[3].send_signal(signal.SIGKILL)
        errors = [process.communicate(timeout=100)[1] for process in processes]
        assert [process.returncode for process in processes] == [
            0,
            0,
            0,
            -signal.SIGKILL,
        ], errors
        states = {state.name: state for state in ledger.budgets.states()}
        assert set(states) == set(LIMITS)
        for name in LIMITS:
            _check_history(ledger, name)
        paid = {
            name: ledger.runs.resolve(name).cost_known for name in ("run-1", "run-2")
        }
    assert states["run-1"].reserved == 0
    assert states["run-1"].spent == states["day team=claims"].spent
    assert min(states["day"].free, states["day team=claims"].free) < Decimal("0.02"), (
        "no call was refused too early"
    )
    assert states["day"].spent + states["day"].reserved == sum(
        states[name].spent + states[name].reserved for name in paid
    )
    assert all(paid[name] <= states[name].spent for name in paid)


def _check_history(ledger: Ledger, name: str) -> None:
    """Every row follows from the one before it, and none is over the limit."""
    spent = reserved = Decimal(0)
    open_calls: dict[str | None, Decimal] = {}
    for change in ledger.budgets.history(name):
        if change.kind == "reserved":
            open_calls[change.reservation] = change.usd
            reserved += change.usd
        else:
            reserved -= open_calls.pop(change.reservation)
            spent += change.usd
        assert (change.spent, change.reserved) == (spent, reserved)
        assert change.spent + change.reserved <= change.limit == Decimal(LIMITS[name])
    [state] = ledger.budgets.states([name])
    assert (state.spent, state.reserved) == (spent, reserved)


# ---- an empty purse


@pytest.fixture
def provider() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(GOOD)
        yield server


Make = Callable[..., Engine]


@pytest.fixture
def make(tmp_path: Path, provider: Standin) -> Iterator[Make]:
    """Engines of a project whose one model costs up to about 0.001 USD a call, under these `budget` rules."""
    made: list[Engine] = []

    def engine(budget: str = "{}", price: str = PRICE) -> Engine:
        rules = RULES.replace("[small, large]", "[small]") + f"budget: {budget}\n"
        root = make_project(
            tmp_path / str(len(made)),
            model("small", provider.url, price=price),
            rules=rules,
        )
        made.append(Engine(Project(root), env={}))
        return made[-1]

    yield engine
    for each in made:
        each.close()


def documents(number: int) -> Batch:
    return Batch(
        tuple(
            Document(id=str(n), text=f"{TEXT} Number {n}.", sensitivity="internal")
            for n in range(number)
        )
    )


def outcomes(batch: Batch) -> list[Outcome]:
    return [document.outcomes["classify"] for document in batch.load()]


def accepted(batch: Batch) -> int:
    return sum(outcome.status == "accepted" for outcome in outcomes(batch))


def test_by_default_documents_wait_and_all_that_can_be_paid_is_paid(make: Make) -> None:
    """The worst case of a call holds back money for a moment only, so no document waits while there is enough."""
    engine = make()
    run = engine.start_run("test", budget_usd=Decimal("0.005"))
    done = engine.run_batch(run, CLASSIFY, documents(60), LABELS)
    waiting = [
        outcome.reason for outcome in outcomes(done) if outcome.status == "deferred"
    ]
    assert waiting
    assert all(
        reason.startswith("budget: small: the call may cost") for reason in waiting
    )
    [state] = engine.ledger.budgets.states()
    one = state.spent / accepted(done)
    assert state.limit - state.spent < Decimal("0.0012") + one, (
        "another call would have fitted"
    )


def test_answers_that_were_paid_are_had_with_an_empty_purse(
    make: Make, provider: Standin
) -> None:
    engine = make()
    engine.run_batch(engine.start_run("test"), CLASSIFY, documents(3), LABELS)
    done = engine.run_batch(
        engine.start_run("test", budget_usd=Decimal(0)), CLASSIFY, documents(4), LABELS
    )
    assert (accepted(done), provider.count) == (3, 3)
    assert outcomes(done)[3].reason.startswith("budget: ")


def test_a_run_that_shall_fail_stops_with_all_that_was_paid_on_record(
    make: Make, provider: Standin
) -> None:
    engine = make("{when_empty: fail}")
    run = engine.start_run("test", budget_usd=Decimal("0.003"))
    with pytest.raises(BudgetExceeded, match=r"the run stops.*the budget 'run "):
        engine.run_batch(run, CLASSIFY, documents(20), LABELS)
    made = provider.count
    assert len(list(engine.ledger.runs.attempts(run.id))) == made > 0
    assert len(list(engine.ledger.runs.outcomes(run.id))) == 20
    with pytest.raises(BudgetExceeded):
        engine.run_batch(run, CLASSIFY, documents(30), LABELS)
    assert provider.count == made


def test_a_person_is_asked_once_and_what_is_granted_is_spent(make: Make) -> None:
    engine, asked = make("{when_empty: pause}"), list[str]()

    def ask(error: BudgetExceeded) -> Decimal | None:
        asked.append(str(error))
        return Decimal(1) if len(asked) == 1 else None

    run = engine.start_run("test", budget_usd=Decimal("0.003"), ask=ask)
    done = engine.run_batch(run, CLASSIFY, documents(20), LABELS)
    assert accepted(done) == 20
    assert len(asked) == 1
    assert f"the budget 'run {run.id}' has" in asked[0]
    [state] = engine.ledger.budgets.states()
    assert state.limit == Decimal("1.003")


def test_after_a_no_documents_wait_and_nobody_is_asked_again(make: Make) -> None:
    engine, asked = make("{when_empty: pause}"), list[str]()

    def ask(error: BudgetExceeded) -> None:
        asked.append(str(error))

    run = engine.start_run("test", budget_usd=Decimal("0.003"), ask=ask)
    assert 0 < accepted(engine.run_batch(run, CLASSIFY, documents(20), LABELS)) < 20
    assert len(asked) == 1


def test_a_run_that_is_stopped_while_it_waits_for_a_person_does_not_wait_on(
    make: Make,
) -> None:
    engine, asked, answered = (
        make("{when_empty: pause}"),
        threading.Event(),
        threading.Event(),
    )

    def ask(error: BudgetExceeded) -> Decimal:
        asked.set()
        answered.wait(60)
        return Decimal(1)

    run = engine.start_run("test", budget_usd=Decimal(0), ask=ask)
    with ThreadPoolExecutor() as pool:
        batch = pool.submit(engine.run_batch, run, CLASSIFY, documents(3), LABELS)
        assert asked.wait(30)
        engine.finish_run(run, "cancelled")
        assert accepted(batch.result(timeout=30)) == 0
    answered.set()


def test_a_review_by_a_person_is_no_want_of_money(
    tmp_path: Path, provider: Standin
) -> None:
    """Though a dearer model was refused on the way."""
    dear = "{input: 1000, output: 1000, source: test, date: 2026-11-01}"
    rules = RULES.replace("try: [small, large]", "try: [small, large], review: human")
    entries = model("small", provider.url, price=dear), model("large", provider.url)
    with Engine(
        Project(make_project(tmp_path / "p", *entries, rules=rules)), env={}
    ) as engine:
        run = engine.start_run("test", budget_usd=Decimal("0.01"))
        [outcome] = outcomes(engine.run_batch(run, CLASSIFY, documents(1), LABELS))
    assert (outcome.status, outcome.model, run.budget.last_shortfall) == (
        "deferred",
        "large",
        None,
    )
    assert outcome.reason.startswith("waits for a person's review")


def test_a_run_on_prefect_pauses_and_goes_on_when_it_is_resumed_with_money(
    prefect_server: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.flow_runs import resume_flow_run
    from prefect.runtime import flow_run

    from tierwise.orchestrate.runs import current_run, recorded_run

    engine = make("{when_empty: pause}")
    monkeypatch.setenv("TIERWISE_PROJECT", str(engine.project.root))
    started: list[Any] = []

    @flow
    def job() -> tuple[int, str]:
        started.append(flow_run.get_id())
        with recorded_run(budget_usd=0.003) as run:
            mine = current_run().engine
            return accepted(
                mine.run_batch(run.context, CLASSIFY, documents(20), LABELS)
            ), run.id

    def person() -> None:
        with get_client(sync_client=True) as client:
            while not (
                started
                and (state := client.read_flow_run(started[0]).state)
                and state.is_paused()
            ):
                time.sleep(0.1)
        resume_flow_run(started[0], run_input={"add_usd": 0.5})

    thread = threading.Thread(target=person)
    thread.start()
    done, run_id = job()
    thread.join()
    assert done == 20
    states = {state.name: state.limit for state in engine.ledger.budgets.states()}
    assert states == {f"run {run_id}": Decimal("0.503")}


# ---- limits that runs share


def test_runs_share_a_days_limit_and_only_those_with_a_tag_that_of_the_tag(
    make: Make,
) -> None:
    claims = "{usd: 0.0015, per: day, tags: {team: claims}}"
    engine = make(f"{{limits: [{{usd: 0.004, per: day}}, {claims}]}}")
    tagged = engine.start_run("test", tags={"team": "claims", "customer": "acme"})
    first = engine.run_batch(tagged, CLASSIFY, documents(40), LABELS)
    assert 0 < accepted(first) < 40
    assert " team=claims' has" in outcomes(first)[-1].reason
    second = engine.run_batch(
        engine.start_run("test", tags={"team": "sales"}),
        CLASSIFY,
        documents(80),
        LABELS,
    )
    paid = sum(
        not attempt.reused
        for outcome in outcomes(second)
        for attempt in outcome.attempts
    )
    assert paid > 0
    assert accepted(second) < 80
    states = {
        state.name.partition(" ")[2].partition(" ")[2]: state
        for state in engine.ledger.budgets.states()
    }
    assert states["team=claims"].spent <= Decimal("0.0015")
    assert states["team=claims"].spent < states[""].spent <= Decimal("0.004")


def test_repairs_and_escalations_draw_on_the_purse_too(
    make: Make, provider: Standin
) -> None:
    engine = make()
    provider.answer("no", INVENTED)
    run = engine.start_run("test", budget_usd=Decimal(1))
    [outcome] = outcomes(engine.run_batch(run, CLASSIFY, documents(1), LABELS))
    assert [attempt.kind for attempt in outcome.attempts] == ["first", "repair"]
    [state] = engine.ledger.budgets.states()
    assert state.spent == outcome.cost == run.budget.spent


@pytest.mark.parametrize(
    "fault",
    [NO_USAGE, Fault(usage={"prompt_tokens": 10**17})],
    ids=["no usage", "more than any window holds"],
)
def test_a_call_whose_cost_stays_unknown_counts_at_its_worst(
    make: Make, provider: Standin, fault: Fault
) -> None:
    """Figures that cannot be true are no figures, and no reason to lose the answer."""
    engine = make()
    provider.faults([fault])
    run = engine.start_run("test", budget_usd=Decimal(1))
    [outcome] = outcomes(engine.run_batch(run, CLASSIFY, documents(1), LABELS))
    assert (outcome.status, outcome.cost) == ("accepted", None)
    [state] = engine.ledger.budgets.states()
    [reserved, settled] = engine.ledger.budgets.history(state.name)
    assert settled.usd == reserved.usd == state.spent == run.budget.spent > 0


def test_a_budget_that_is_no_amount_leaves_no_run_on_record(make: Make) -> None:
    engine = make()
    with pytest.raises(Exception, match="a budget is 0 USD or more"):
        engine.start_run("test", budget_usd=Decimal(-1))
    assert engine.ledger.runs.newest() == []


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (
            "{limits: [{usd: 1, per: day}, {usd: 2, per: day}]}",
            "two limits are for the same period and tags",
        ),
        ("{limits: [{usd: 1, per: week}]}", "day"),
        ("{limits: [{usd: -1, per: day}]}", "0"),
        ("{when_empty: wait}", "pause"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_with_its_place(
    make: Make, budget: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=r"rules\.yaml:\d+: ") as caught:
        make(budget)
    assert message in str(caught.value)


# ---- on the command line


def test_budgets_are_shown_with_their_changes_and_more_can_be_added(
    make: Make, terminal: Terminal
) -> None:
    engine = make("{limits: [{usd: 2, per: month, tags: {team: claims}}]}")
    root = engine.project.root
    month = Limit("team=claims", Decimal(2), "month").name(time.time())
    assert f"{month} 2.00 USD 0.000000 USD" in " ".join(
        terminal("budgets", cwd=root).out.split()
    )
    run = engine.start_run("test", tags={"team": "claims"}, budget_usd=Decimal(1))
    engine.run_batch(run, CLASSIFY, documents(1), LABELS)
    listed = terminal("budgets", cwd=root).out
    assert month in listed
    assert f"run {run.id}" in listed
    added = terminal("budgets", month, "--add", "3", "--note", "year's end", cwd=root)
    assert added.code == 0
    assert [
        word in added.out
        for word in ("reserved", "settled", "granted", "year's end", "5.00 USD")
    ] == [True] * 5
    [state] = json.loads(terminal("budgets", "--json", cwd=root).out)[:1]
    assert (state["name"], Decimal(state["limit"])) == (month, 5)


def test_a_budget_that_nobody_knows_is_refused_with_the_nearest(
    make: Make, terminal: Terminal
) -> None:
    engine = make("{limits: [{usd: 2, per: day}]}")
    today = Limit("", Decimal(2), "day").name(time.time())
    unknown = terminal("budgets", "day", "--add", "3", cwd=engine.project.root)
    assert (unknown.code, today in unknown.err) == (2, True)
    unnamed = terminal("budgets", "--add", "3", cwd=engine.project.root)
    assert (unnamed.code, "name the budget" in unnamed.err) == (2, True)
