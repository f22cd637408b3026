"""A model that is out or at its rate limit: who waits for it, how long, and what is said."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit.clock import FastClock
from tests.kit.projects import RULES, make_project, model
from tests.kit.standin import Fault, Request, Standin, status, unused_address
from tests.kit.steps import CLASSIFY, GOOD, LABELS, TEXT, classify
from tierwise.cascade.circuit import FAULTS_TO_OPEN
from tierwise.engine import Engine
from tierwise.errors import Misuse, RunStopped
from tierwise.project import Project
from tierwise.records import Batch, Document, Outcome

ALONE = RULES.replace("[small, large]", "[small]")
SPEED = 120.0  # fast seconds a second
HALF_HOUR = 1800.0


def documents(number: int, first: int = 0) -> list[Document]:
    return [
        Document(id=str(n), text=f"{TEXT} Number {n}.", sensitivity="internal")
        for n in range(first, first + number)
    ]


class Server:
    """What a stand-in answers, by a fast clock; `refused` counts its faults."""

    def __init__(self, clock: FastClock) -> None:
        self.clock = clock
        self.refused = 0
        self.answered = 0
        self._taken: list[float] = []
        self._lock = threading.Lock()

    def bucket(
        self, limit: int, window: float, refusal: Callable[[float], Fault]
    ) -> Callable[[Request], str | Fault]:
        """At most N requests in a window of fast seconds."""

        def answer(_: Request) -> str | Fault:
            with self._lock:
                now = self.clock.elapsed()
                self._taken = [at for at in self._taken if at > now - window]
                if len(self._taken) < limit:
                    self._taken.append(now)
                    self.answered += 1
                    return GOOD
                self.refused += 1
                return refusal(self._taken[0] + window - now)

        return answer

    def down_until(
        self, seconds: float, fault: Fault
    ) -> Callable[[Request], str | Fault]:
        """A fault for some fast seconds, then good answers."""

        def answer(_: Request) -> str | Fault:
            if self.clock.elapsed() < seconds:
                self.refused += 1
                return fault
            self.answered += 1
            return GOOD

        return answer


@pytest.fixture
def clock() -> FastClock:
    return FastClock(SPEED)


@pytest.fixture
def server(clock: FastClock) -> Server:
    return Server(clock)


@pytest.fixture
def small() -> Iterator[Standin]:
    with Standin() as standin:
        standin.answer(GOOD)
        yield standin


@pytest.fixture
def large() -> Iterator[Standin]:
    with Standin() as standin:
        standin.answer(GOOD)
        yield standin


def engine_at(root: Path, clock: FastClock, *models: str, rules: str = ALONE) -> Engine:
    return Engine(Project(make_project(root, *models, rules=rules)), {}, clock)


def in_run(engine: Engine, *docs: Document, **settings: Any) -> list[Outcome]:
    """The outcomes of a run with half an hour of patience, unless it is said otherwise."""
    run = engine.start_run("test", **{"patience_s": HALF_HOUR, **settings})
    outcomes = classify(engine, *docs, run=run)
    engine.finish_run(run, "completed")
    return outcomes


def status_of(outcomes: list[Outcome]) -> set[tuple[str, str | None]]:
    return {(outcome.status, outcome.model) for outcome in outcomes}


def after(seconds: float) -> Fault:
    return status(429, "Rate limit exceeded", retry_after=int(seconds) + 1)


def in_words(seconds: float) -> Fault:
    return status(429, f"Rate limit reached (RPM). Please try again in {seconds:.3f}s.")


def as_gemini(seconds: float) -> Fault:
    info = {
        "@type": "type.googleapis.com/google.rpc.RetryInfo",
        "retryDelay": f"{int(seconds) + 1}s",
    }
    error = {
        "code": 429,
        "message": "You exceeded your current quota",
        "details": [info],
    }
    return Fault(status=429, body=json.dumps([{"error": error}]).encode())


def unhinted(_: float) -> Fault:
    return status(429, "slow down")


# ---- a limit of a minute


@pytest.mark.parametrize("refusal", [after, in_words, as_gemini, unhinted])
def test_a_limit_a_minute_slows_a_batch_and_defers_nothing(
    tmp_path: Path,
    small: Standin,
    server: Server,
    clock: FastClock,
    refusal: Callable[[float], Fault],
) -> None:
    """40 documents, 10 requests a minute: they take minutes, and few calls are refused."""
    small.answer(server.bucket(10, 60, refusal))
    with engine_at(tmp_path, clock, model("small", small.url)) as engine:
        outcomes = in_run(engine, *documents(40))
    assert status_of(outcomes) == {("accepted", "small")}
    assert server.answered == 40
    assert server.refused <= 40


def test_entries_that_share_a_providers_limit_all_get_through(
    tmp_path: Path, small: Standin, server: Server, clock: FastClock
) -> None:
    small.answer(server.bucket(6, 60, after))
    rules = ALONE.replace(
        "  - {name: default",
        "  - {name: german, when: {language: de}, try: [other]}\n  - {name: default",
    )
    with engine_at(
        tmp_path,
        clock,
        model("small", small.url),
        model("other", small.url),
        rules=rules,
    ) as engine:
        german = [
            Document(
                id=f"de{n}", text=f"{TEXT} {n}", sensitivity="internal", language="de"
            )
            for n in range(10)
        ]
        outcomes = in_run(engine, *documents(10), *german)
    assert status_of(outcomes) == {("accepted", "small"), ("accepted", "other")}


def test_a_cheap_model_at_its_limit_is_waited_for_though_another_is_left(
    tmp_path: Path, small: Standin, large: Standin, server: Server, clock: FastClock
) -> None:
    small.answer(server.bucket(10, 60, after))
    with engine_at(
        tmp_path,
        clock,
        model("small", small.url),
        model("large", large.url, strength=20),
        rules=RULES,
    ) as engine:
        outcomes = in_run(engine, *documents(25))
    assert status_of(outcomes) == {("accepted", "small")}
    assert large.count == 0


def test_a_route_may_fall_back_at_once(
    tmp_path: Path,
    small: Standin,
    large: Standin,
    server: Server,
    clock: FastClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    small.answer(server.bucket(10, 60, after))
    rules = RULES.replace("[small, large]", "[small, large], on_outage: fallback")
    with engine_at(
        tmp_path,
        clock,
        model("small", small.url),
        model("large", large.url, strength=20),
        rules=rules,
    ) as engine:
        outcomes = in_run(engine, *documents(25))
    assert {outcome.status for outcome in outcomes} == {"accepted"}
    assert server.answered == 10
    assert large.count == 15
    said = [line for line in caplog.messages if line.startswith("small is out")]
    assert len(said) == 1
    assert "go to the next model of their route: too many requests (429)" in said[0]


# ---- outages


@pytest.mark.parametrize(
    "fault",
    [
        status(500, "fell over"),
        status(503, "busy"),
        status(503, "busy", retry_after=40),
        status(529, "overloaded"),
        status(408, "too slow"),
        status(429, "slow down", retry_after=0),
        Fault(cut_at=0),
    ],
    ids=["500", "503", "503 with a wait", "529", "408", "429 with no wait", "reset"],
)
def test_an_outage_of_two_minutes_defers_nothing(
    tmp_path: Path, small: Standin, server: Server, clock: FastClock, fault: Fault
) -> None:
    small.answer(server.down_until(120, fault))
    if fault.cut_at is not None:
        small.answer(GOOD, server.down_until(120, fault))
    with engine_at(tmp_path, clock, model("small", small.url)) as engine:
        outcomes = in_run(engine, *documents(1)) + in_run(engine, *documents(30, 1))
    assert status_of(outcomes) == {("accepted", "small")}
    # A few before the circuit opens, and one call each time that it is half open.
    assert server.refused <= 3 * FAULTS_TO_OPEN


def test_a_half_open_circuit_is_tried_by_one_document_however_many_wait(
    tmp_path: Path, small: Standin, server: Server, clock: FastClock
) -> None:
    small.answer(server.down_until(200, status(500)))
    with engine_at(tmp_path, clock, model("small", small.url)) as engine:
        outcomes = in_run(engine, *documents(60))
    assert status_of(outcomes) == {("accepted", "small")}
    opened = FAULTS_TO_OPEN + 8  # those in flight when it opened
    tries = 3  # after 30, 60 and 120 s
    assert server.refused <= opened + tries


def test_an_outage_longer_than_the_patience_falls_back_and_waits_only_once(
    tmp_path: Path, small: Standin, large: Standin, server: Server, clock: FastClock
) -> None:
    """The patience counts from the last answer: a second batch does not wait again."""
    small.answer(GOOD, server.down_until(1e9, status(503, "no capacity")))
    with engine_at(
        tmp_path,
        clock,
        model("small", small.url),
        model("large", large.url, strength=20),
        rules=RULES,
    ) as engine:
        in_run(engine, *documents(1))
        outcomes = in_run(engine, *documents(10, 1), patience_s=100)
        later = in_run(engine, *documents(10, 11), patience_s=100)
    assert status_of(outcomes) == status_of(later) == {("accepted", "large")}
    assert server.refused <= 3 * FAULTS_TO_OPEN


def test_a_documents_own_fault_is_no_outage(
    tmp_path: Path, small: Standin, clock: FastClock
) -> None:
    """A server that answers the others, and fails at one document, is not waited for."""

    def answer(request: Request) -> str | Fault:
        if "Number 3." in request.prompt:
            return status(500, "cannot read this")
        return GOOD

    small.answer(answer)
    with engine_at(tmp_path, clock, model("small", small.url)) as engine:
        first = in_run(engine, *documents(30))
    [deferred] = [outcome for outcome in first if outcome.status == "deferred"]
    assert deferred.cause == "outage"
    assert "500" in deferred.reason
    assert "patience" not in deferred.reason


def test_a_document_that_is_always_refused_ends_though_others_are_answered(
    tmp_path: Path, small: Standin
) -> None:
    """Such as a request above the limit of a minute, at a server that does not say so."""

    def answer(request: Request) -> str | Fault:
        if "Number 3." in request.prompt:
            return status(429, "slow down", retry_after=0)
        return GOOD

    small.answer(answer)
    very_fast = FastClock(3000)
    with engine_at(tmp_path, very_fast, model("small", small.url)) as engine:
        outcomes = in_run(engine, *documents(20), patience_s=1e5)
    [deferred] = [outcome for outcome in outcomes if outcome.status == "deferred"]
    assert "too many requests" in deferred.reason
    assert "patience" not in deferred.reason


def test_a_server_that_is_restarted_is_waited_for(
    tmp_path: Path, clock: FastClock
) -> None:
    """It refuses connections for a while, after it has answered."""
    with Standin() as first:
        first.answer(GOOD)
        address = first.url
        port = first.port
        engine = engine_at(tmp_path, clock, model("small", address))
        in_run(engine, *documents(1))
    outcomes: list[Outcome] = []
    thread = threading.Thread(
        target=lambda: outcomes.extend(in_run(engine, *documents(20, 1)))
    )
    thread.start()
    time.sleep(0.5)  # a minute by the fast clock
    assert thread.is_alive()
    with Standin(port=port) as second:
        second.answer(GOOD)
        thread.join(30)
    engine.close()
    assert status_of(outcomes) == {("accepted", "small")}


def test_a_server_that_never_answered_is_waited_for_a_minute(
    tmp_path: Path, clock: FastClock
) -> None:
    """Its address is more likely wrong; the reason says what is wrong with it."""
    with engine_at(tmp_path, clock, model("small", unused_address())) as engine:
        outcomes = in_run(engine, *documents(3))
    assert {outcome.status for outcome in outcomes} == {"deferred"}
    for outcome in outcomes:
        assert "connection refused" in outcome.reason
        assert "the patience is 60 s" in outcome.reason


def test_a_server_that_never_answered_is_left_at_once_where_another_is(
    tmp_path: Path, large: Standin, clock: FastClock
) -> None:
    with engine_at(
        tmp_path,
        clock,
        model("small", unused_address()),
        model("large", large.url, strength=20),
        rules=RULES,
    ) as engine:
        outcomes = in_run(engine, *documents(20))
    assert status_of(outcomes) == {("accepted", "large")}


# ---- what ends a wait


def test_the_reason_of_a_deferral_names_the_last_fault_and_the_remedy(
    tmp_path: Path, small: Standin, clock: FastClock
) -> None:
    small.answer(status_answer(status(429, "Rate limit exceeded", retry_after=57)))
    with engine_at(tmp_path, clock, model("small", small.url)) as engine:
        [first] = in_run(engine, *documents(1), patience_s=0)
        [second] = in_run(engine, *documents(1, 1), patience_s=0)
        [third] = in_run(engine, *documents(1, 2), patience_s=20)
    for outcome in (first, second, third):
        assert (outcome.status, outcome.cause) == ("deferred", "outage")
        said = f"too many requests (429) at 127.0.0.1:{small.port}: Rate limit exceeded"
        assert said in outcome.reason
        assert "circuit" not in outcome.reason
        assert "`requests_per_minute` in the catalog" in outcome.reason
    assert "the patience is 20 s" in third.reason


def status_answer(fault: Fault) -> Callable[[Request], Fault]:
    return lambda _: fault


def test_a_deadline_before_the_wait_ends_it_at_once(
    tmp_path: Path, small: Standin
) -> None:
    small.answer(status_answer(status(429, "slow down", retry_after=600)))
    root = make_project(tmp_path, model("small", small.url), rules=ALONE)
    with Engine(Project(root), {}) as engine:
        outcomes = in_run(engine, *documents(5), deadline=time.time() + 300)
    assert {outcome.status for outcome in outcomes} == {"deferred"}
    assert "the run's deadline comes first" in outcomes[0].reason


def test_a_wait_beyond_the_patience_is_not_begun(
    tmp_path: Path, small: Standin
) -> None:
    small.answer(status_answer(status(429, "slow down", retry_after=3000)))
    root = make_project(tmp_path, model("small", small.url), rules=ALONE)
    with Engine(Project(root), {}) as engine:
        outcomes = in_run(engine, *documents(5))
    assert {outcome.status for outcome in outcomes} == {"deferred"}
    assert "the patience is 30 min" in outcomes[-1].reason


def test_a_run_that_is_stopped_waits_no_longer(tmp_path: Path, small: Standin) -> None:
    """As by Ctrl-C; here the clock is real."""
    small.answer(status_answer(status(429, "slow down", retry_after=600)))
    root = make_project(tmp_path, model("small", small.url), rules=ALONE)
    with Engine(Project(root), {}) as engine:
        run = engine.start_run("test", patience_s=HALF_HOUR)
        raised: list[BaseException] = []

        def work() -> None:
            try:
                engine.run_batch(run, CLASSIFY, Batch(tuple(documents(3))), LABELS)
            except RunStopped as error:
                raised.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        while small.count == 0:
            time.sleep(0.01)
        engine.stop_run(run)
        thread.join(10)
        engine.finish_run(run, "cancelled")
    assert len(raised) == 1


def test_the_end_of_the_engine_ends_all_waits(tmp_path: Path, small: Standin) -> None:
    small.answer(status_answer(status(429, "slow down", retry_after=600)))
    root = make_project(tmp_path, model("small", small.url), rules=ALONE)
    engine = Engine(Project(root), {})
    run = engine.start_run("test", patience_s=HALF_HOUR)
    batch = Batch(tuple(documents(3)))
    done: list[Batch] = []
    thread = threading.Thread(
        target=lambda: done.append(engine.run_batch(run, CLASSIFY, batch, LABELS)),
        daemon=True,
    )
    thread.start()
    while small.count == 0:
        time.sleep(0.01)
    engine.close()
    thread.join(10)
    assert [d.outcomes["classify"].status for d in done[0].load()] == ["deferred"] * 3


def test_what_is_waited_for_is_said_and_its_end_too(
    tmp_path: Path,
    small: Standin,
    server: Server,
    clock: FastClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    small.answer(server.bucket(5, 60, after))
    with (
        caplog.at_level(logging.WARNING, "tierwise"),
        engine_at(tmp_path, clock, model("small", small.url)) as engine,
    ):
        in_run(engine, *documents(10))
    lines = [record.getMessage() for record in caplog.records]
    [said] = [line for line in lines if line.startswith("waiting for small")]
    assert "too many requests (429) at 127.0.0.1" in said
    assert "Rate limit exceeded" in said
    assert "given up after 30 min without an answer" in said
    assert "small answers again" in lines


def test_documents_that_wait_hold_no_reservation(
    tmp_path: Path, small: Standin
) -> None:
    small.answer(status_answer(status(429, "slow down", retry_after=600)))
    root = make_project(tmp_path, model("small", small.url), rules=ALONE)
    with Engine(Project(root), {}) as engine:
        run = engine.start_run("test", patience_s=HALF_HOUR, budget_usd=Decimal(1))

        def work() -> None:
            with suppress(RunStopped):
                engine.run_batch(run, CLASSIFY, Batch(tuple(documents(20))), LABELS)

        thread = threading.Thread(target=work)
        thread.start()
        while small.count == 0 or engine.ledger.budgets.states()[0].reserved:
            time.sleep(0.01)
        assert thread.is_alive()
        assert engine.ledger.budgets.states()[0].spent == 0
        engine.stop_run(run)
        thread.join(10)


# ---- faults that stop a model


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (status(401, "bad key"), "the key is missing, wrong or not allowed"),
        (status(402, "Insufficient Balance"), "no credit left at 127.0.0.1"),
        (status(404, "no such model"), "does not serve this model"),
    ],
)
@pytest.mark.parametrize("measured", [False, True])
def test_a_stopped_models_fault_is_the_reason_of_every_later_document(
    tmp_path: Path,
    small: Standin,
    clock: FastClock,
    fault: Fault,
    text: str,
    measured: bool,
) -> None:
    small.answer(status_answer(fault))
    with engine_at(tmp_path, clock, model("small", small.url)) as engine:
        run = engine.start_run("test", patience_s=HALF_HOUR)
        models = ("small",) if measured else ()
        outcomes = []
        for document in documents(3):
            done = engine.run_batch(
                run, CLASSIFY, Batch((document,)), LABELS, models=models
            )
            outcomes.append(done.load()[0].outcomes["classify"])
    assert small.count == 1
    for outcome in outcomes:
        assert (outcome.status, outcome.cause) == ("deferred", "setup")
        assert text in outcome.reason


# ---- settings


def test_the_settings_are_read_from_the_project_the_environment_and_the_route(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = ALONE.replace("try: [small]", "try: [small], patience: 90 s")
    root = make_project(tmp_path, model("small", "http://127.0.0.1:1"), rules=rules)
    monkeypatch.delenv("TIERWISE_PATIENCE")
    assert Project(root).patience_s == HALF_HOUR
    (root / "pyproject.toml").write_text('[tool.tierwise]\npatience = "1 h"\n')
    assert Project(root).patience_s == 3600
    assert Project(root).rules.routes[0].patience == 90
    monkeypatch.setenv("TIERWISE_PATIENCE", "5 min")
    assert Project(root).patience_s == 300
    monkeypatch.setenv("TIERWISE_PATIENCE", "5")
    with pytest.raises(
        Misuse, match="TIERWISE_PATIENCE is '5': write a time with its unit"
    ):
        _ = Project(root).patience_s


def test_settings_that_nobody_uses_change_no_hash(tmp_path: Path) -> None:
    hashes = set()
    for number, setting in enumerate(["", ", on_outage: wait", ", patience: 90 s"]):
        rules = ALONE.replace("try: [small]", f"try: [small]{setting}")
        root = make_project(
            tmp_path / str(number), model("small", "http://127.0.0.1:1"), rules=rules
        )
        hashes.add(Project(root).rules.hash)
    assert len(hashes) == 2
