"""`http_step`: a service behind an address as a step, on real sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from pydantic import BaseModel

from tests.kit.projects import make_project, model
from tests.kit.small_server import Body, SmallServer
from tierwise import (
    Document,
    Sensitivity,
    StepTask,
    http_step,
    read_documents,
    recorded_run,
)
from tierwise.engine import Engine
from tierwise.errors import Misuse
from tierwise.lint.import_project import describe_project
from tierwise.orchestrate.dry_run import dry_run
from tierwise.plan import Planner
from tierwise.project import Project
from tierwise.records import Batch, Cause, Outcome

GUARDED = """
version: 1
guards:
  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
routes:
  - {name: default, try: [small]}
"""
TOKEN = "Bearer 0123456789abcdef0123456789abcdef"


class Vat(BaseModel):
    """Whether a VAT number is valid."""

    valid: bool
    name: str


def number_of(document: Document, *, country: str = "DE") -> dict[str, Any]:
    if "nothing" in document.text:
        raise ValueError(document.text)
    return {"number": f"{country}{document.text.rpartition(' ')[2]}"}


def valid(body: Body) -> tuple[int, Any]:
    return 200, {"valid": True, "name": body["number"]}


@pytest.fixture
def service() -> Iterator[SmallServer]:
    with SmallServer(answer=valid) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    root = make_project(
        tmp_path / "project", model("small", "http://127.0.0.1:1"), rules=GUARDED
    )
    monkeypatch.chdir(root)
    return root


@contextmanager
def engine_of(root: Path, url: str | None = None, **env: str) -> Iterator[Engine]:
    if url is not None:
        (root / "pyproject.toml").write_text(f'[tool.tierwise]\nledger_url = "{url}"\n')
    with Engine(Project(root), {**os.environ, **env}) as engine:
        yield engine


def invoices(
    *numbers: int, sensitivity: Sensitivity = "internal"
) -> tuple[Document, ...]:
    return tuple(
        Document(id=f"{each}", text=f"Invoice {each}", sensitivity=sensitivity)
        for each in numbers
    )


def step_at(url: str, **settings: Any) -> StepTask[Vat]:
    return http_step("vat", url=url, returns=Vat, **{"body": number_of, **settings})


def run_once(
    engine: Engine,
    task: StepTask[Any],
    documents: tuple[Document, ...],
    budget: str | None = None,
    **parameters: Any,
) -> tuple[Outcome, ...]:
    usd = None if budget is None else Decimal(budget)
    run = engine.start_run("test", budget_usd=usd)
    done = engine.run_batch(run, task.spec, Batch(documents), parameters)
    engine.finish_run(run, "completed")
    return tuple(document.outcomes[task.name] for document in done.load())


def test_an_answer_is_an_outcome_on_record_and_is_not_asked_for_again(
    project: Path, url: str, service: SmallServer
) -> None:
    task = step_at(
        "${VAT_URL}/check", headers={"Authorization": "VAT_TOKEN"}, price_usd=0.01
    )
    with engine_of(project, url, VAT_URL=service.url, VAT_TOKEN=TOKEN) as engine:
        for _ in range(2):
            [outcome] = run_once(engine, task, invoices(7), "1", country="FR")
            assert outcome.value == {"valid": True, "name": "FR7"}
        [again] = outcome.attempts
        run_once(engine, task, invoices(7), country="IT")
    assert again.reused
    assert (again.tier, again.model) == ("local", "http:vat")
    assert [body["number"] for body in service.bodies] == ["FR7", "IT7"]
    assert service.paths == ["/check", "/check"]
    first, second = service.headers
    assert first["authorization"] == TOKEN
    assert first["idempotency-key"] != second["idempotency-key"]


def test_a_secret_may_end_with_a_new_line_and_holds_none(
    project: Path, service: SmallServer
) -> None:
    task = step_at(service.url, headers={"authorization": "VAT_TOKEN"})
    for number, value in enumerate((f"{TOKEN}\r\n", f"{TOKEN}\nx: y", " ", "")):
        with engine_of(project, VAT_TOKEN=value) as engine:
            [outcome] = run_once(engine, task, invoices(number))
        if number == 0:
            assert outcome.status == "accepted"
        else:
            assert (outcome.status, outcome.attempts) == ("deferred", ())
            assert TOKEN not in repr(outcome)
    [sent] = service.headers
    assert sent["authorization"] == TOKEN


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again_with_the_same_key(
    project: Path, service: SmallServer, status: int
) -> None:
    service.retry_after = "0"
    answers = iter([(status, {"error": "later"}), (200, {"valid": True, "name": "x"})])
    service.answer = lambda body: next(answers)
    with engine_of(project) as engine:
        [outcome] = run_once(engine, step_at(service.url), invoices(7))
    assert outcome.status == "accepted"
    assert [attempt.kind for attempt in outcome.attempts] == ["first", "retry"]
    first, second = service.headers
    assert first["idempotency-key"] == second["idempotency-key"]


REFUSALS: Mapping[int, Cause] = {
    307: "refused",
    400: "refused",
    401: "setup",
    404: "refused",
    422: "refused",
    429: "outage",
    500: "outage",
}


def test_a_refusal_defers_the_document_and_its_body_is_quoted_nowhere(
    project: Path, service: SmallServer, caplog: pytest.LogCaptureFixture
) -> None:
    for status, cause in REFUSALS.items():
        service.answer = lambda body, status=status: (status, {"error": "tattle"})
        with engine_of(project) as engine:
            [outcome] = run_once(engine, step_at(service.url, retries=0), invoices(7))
        assert (outcome.status, outcome.cause) == ("deferred", cause), status
        assert "tattle" not in repr(outcome)
    assert "tattle" not in caplog.text


def test_answers_that_are_none(project: Path, service: SmallServer) -> None:
    answers: list[tuple[Any, Cause]] = [
        (b"<html>maintenance</html>", "refused"),
        (b"", "refused"),
        (b"[" * 100_000, "refused"),
        (b'{"valid": true, "name": "' + b"x" * 5000 + b'"}', "refused"),
        ({"valid": True, "name": TOKEN}, "refused"),
        ({"valid": "perhaps", "name": "x"}, "failed_checks"),
        ([{"valid": True, "name": "x"}], "failed_checks"),
    ]
    settings = {"retries": 0, "max_bytes": 4000, "headers": {"x-key": "VAT_TOKEN"}}
    for content, cause in answers:
        service.answer = lambda body, content=content: (200, content)
        with engine_of(project, VAT_TOKEN=TOKEN) as engine:
            [outcome] = run_once(engine, step_at(service.url, **settings), invoices(7))
        assert (outcome.status, outcome.cause) == ("deferred", cause), content[:30]
        assert TOKEN not in repr(outcome)


def test_a_slow_or_absent_service_is_an_outage(
    project: Path, service: SmallServer
) -> None:
    ended = threading.Event()

    def slow(body: Body) -> tuple[int, Any]:
        ended.wait(30)
        return valid(body)

    service.answer = slow
    with engine_of(project) as engine:
        for address in (service.url, "http://127.0.0.1:1"):
            task = step_at(address, retries=0, timeout_s=0.2)
            [outcome] = run_once(engine, task, invoices(7))
            assert (outcome.status, outcome.cause) == ("deferred", "outage")
    ended.set()


def test_a_body_that_cannot_be_made_defers_its_document_alone(
    project: Path, service: SmallServer
) -> None:
    empty = Document(id="0", text="nothing here", sensitivity="internal")
    with engine_of(project) as engine:
        first, second = run_once(engine, step_at(service.url), (empty, *invoices(7)))
    assert (first.status, first.cause) == ("deferred", "function")
    assert "nothing here" not in repr(first)
    assert second.status == "accepted"


def test_its_price_is_reserved(project: Path, url: str, service: SmallServer) -> None:
    with engine_of(project, url) as engine:
        task = step_at(service.url, price_usd=0.4)
        outcomes = run_once(engine, task, invoices(1, 2, 3, 4), "1")
    assert Counter(each.cause for each in outcomes) == {None: 2, "budget": 2}
    assert len(service.bodies) == 2


# ---- where documents go


def test_no_confidential_document_reaches_an_address_outside_the_house(
    project: Path, service: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy of the environment is the only way out, and it is watched."""
    monkeypatch.setenv("HTTP_PROXY", service.url)
    outside = "http://vat.example.org/check"
    with engine_of(project) as engine:
        [public] = run_once(engine, step_at(outside), invoices(1))
        assert (public.status, public.attempts[0].tier) == ("accepted", "hosted")
        service.bodies.clear()
        for number, settings in enumerate(
            ({}, {"tier": "clarifai"}, {"tier": "local"}, {"tier": "nowhere"}), 2
        ):
            for sensitivity in ("confidential", "restricted"):
                task = step_at(outside, **settings)
                documents = invoices(number, sensitivity=sensitivity)  # type: ignore[arg-type]
                [outcome] = run_once(engine, task, documents)
                assert outcome.status == "deferred"
                assert outcome.cause in ("no_model", "setup")
        inherited = Outcome(step="read-me", status="accepted", sensitivity="restricted")
        [document] = invoices(9)
        task = step_at(outside)
        [outcome] = run_once(engine, task, (document.with_outcome(inherited),))
        assert outcome.status == "deferred"
    assert service.bodies == []


def test_without_a_guard_and_a_tier_what_is_confidential_stays_all_the_same(
    project: Path, service: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", service.url)
    rules = "version: 1\nroutes: [{name: default, try: [small]}]\n"
    (project / "routing_rules" / "rules.yaml").write_text(rules)
    secret = invoices(7, sensitivity="confidential")
    outside = "http://vat.example.org/check"
    with engine_of(project) as engine:
        [kept] = run_once(engine, step_at(outside), secret)
        assert (kept.status, kept.cause) == ("deferred", "no_model")
        assert service.bodies == []
        # A person named the tier, and no guard keeps documents from it.
        [sent] = run_once(engine, step_at(outside, tier="clarifai"), secret)
    assert (sent.status, sent.attempts[0].tier) == ("accepted", "clarifai")


def test_an_address_in_the_house_is_reached_without_a_proxy_and_without_redirects(
    project: Path, service: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SmallServer(answer=valid) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        secret = invoices(7, sensitivity="restricted")
        with engine_of(project) as engine:
            [outcome] = run_once(engine, step_at(service.url), secret)
            assert outcome.status == "accepted"
            service.redirects["/away"] = proxy.url
            service.answer = lambda body: (307, {})
            [outcome] = run_once(engine, step_at(f"{service.url}/away"), secret)
            assert outcome.status == "deferred"
        assert proxy.bodies == []


@pytest.mark.parametrize(
    "address",
    [
        "http://user@10.0.0.1/",
        "ftp://127.0.0.1/",
        "127.0.0.1",
        "http://127.0.0.1.example.org/",
        "http://2130706433/",
        "${VAT_URL}",
    ],
)
def test_an_address_that_is_not_surely_in_the_house_is_outside_or_none(
    project: Path, address: str
) -> None:
    with engine_of(project) as engine:
        secret = invoices(7, sensitivity="confidential")
        [outcome] = run_once(engine, step_at(address), secret)
    assert outcome.status == "deferred"
    assert outcome.attempts == ()


def test_settings_that_cannot_be_are_refused() -> None:
    for settings in (
        {"headers": {"authorization": TOKEN}},
        {"headers": {"Content-Length": "VAT_TOKEN"}},
        {"headers": {"Idempotency-Key": "VAT_TOKEN"}},
        {"headers": {"Host": "VAT_TOKEN"}},
        {"headers": {"a\nb": "VAT_TOKEN"}},
        {"method": "GET"},
        {"max_bytes": 0},
        {"price_usd": -1},
        {"body": "text"},
    ):
        with pytest.raises(Misuse):
            step_at("http://127.0.0.1:1", **settings)  # type: ignore[arg-type]


def test_a_plan_sends_nothing(project: Path, service: SmallServer) -> None:
    (project / "inbox").mkdir()
    (project / "inbox" / "7.txt").write_text("Invoice 7")
    task = step_at(service.url, price_usd=0.25)

    @flow(name="check-numbers")
    def check_numbers() -> None:
        with recorded_run(budget_usd=1):
            task.map(read_documents(Path("inbox"), sensitivity="confidential"))

    planner = Planner(Project(project), {})
    try:
        dry_run(check_numbers, {}, planner)
        plan = planner.plan("check-numbers", {})
    finally:
        planner.close()
    assert service.bodies == []
    [row] = plan.rows
    assert (row.model, row.expected) == ("http:vat", Decimal("0.25"))


STEP = """
from pydantic import BaseModel
from tierwise import http_step


class Vat(BaseModel):
    valid: bool


vat{number} = http_step("vat{number}", url="{url}", returns=Vat, headers={headers}, tier={tier!r})
"""


def test_a_check_finds_what_is_wrong_with_a_service(
    project: Path, own_modules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAT_TOKEN", TOKEN)
    monkeypatch.delenv("VAT_URL", raising=False)
    monkeypatch.syspath_prepend(str(project))
    house = "http://127.0.0.1:1/x"
    outside = "http://vat.example.org"
    cases: list[tuple[str, str | None, dict[str, str], list[str]]] = [
        (house, None, {"x-key": "VAT_TOKEN"}, []),
        (house, "local", {}, []),
        (outside, "clarifai", {}, []),
        (outside, None, {}, ["warning"]),
        (outside, "local", {}, ["error"]),
        (outside, "nowhere", {}, ["error"]),
        ("vat.example.org", None, {}, ["error"]),
        ("${{VAT_URL}}/x", None, {}, ["warning"]),
        (house, None, {"x-key": "VAT_OTHER"}, ["warning"]),
    ]
    for number, (address, tier, headers, _) in enumerate(cases):
        text = STEP.format(url=address, headers=headers, tier=tier, number=number)
        text = text.replace("{{", "{").replace("}}", "}")
        (project / "tasks" / f"vat{number}.py").write_text(text)
    found = describe_project(project)["findings"]
    for number, (address, tier, _, levels) in enumerate(cases):
        of_step = [
            each["level"]
            for each in found
            if each["kind"] == "step" and Path(each["path"]).stem == f"vat{number}"
        ]
        assert of_step == levels, (address, tier)


# ---- killed

JOB = """
import sys
from pathlib import Path
from pydantic import BaseModel
from tierwise import Document, function_step, http_step
from tierwise.engine import Engine
from tierwise.project import Project
from tierwise.records import Batch

root, address, calls = Path(sys.argv[1]), sys.argv[2], sys.argv[3]


class Vat(BaseModel):
    valid: bool
    name: str


def noted(document, *, log):
    with open(log, "a") as file:
        file.write(document.id + "\\n")
    return {"valid": True, "name": document.id}


def number_of(document):
    return {"number": document.text}


local = function_step("noted", noted, returns=Vat, concurrency=2)
vat = http_step("vat", url=address, body=number_of, returns=Vat, concurrency=2)
documents = tuple(
    Document(id=str(number), text=f"Invoice {number}", sensitivity="internal")
    for number in range(30)
)
with Engine(Project(root)) as engine:
    run = engine.start_run("job")
    batch = engine.run_batch(run, local.spec, Batch(documents), {"log": calls})
    batch = engine.run_batch(run, vat.spec, batch)
    engine.finish_run(run, "completed")
    print(sum(d.outcomes["vat"].status == "accepted" for d in batch.load()))
"""


def test_a_killed_job_calls_nothing_again_that_was_on_record(
    project: Path, url: str, service: SmallServer, tmp_path: Path
) -> None:
    (project / "pyproject.toml").write_text(f'[tool.tierwise]\nledger_url = "{url}"\n')
    job = tmp_path / "job.py"
    job.write_text(JOB)
    log = tmp_path / "calls"
    command = [sys.executable, str(job), str(project), service.url, str(log)]
    reached = threading.Event()
    held = threading.Event()

    def answer(body: Body) -> tuple[int, Any]:
        if len(service.bodies) >= 12 and not held.is_set():
            reached.set()
            held.wait(60)
        return valid(body)

    service.answer = answer
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert reached.wait(60)
        process.send_signal(signal.SIGKILL)
    held.set()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["30"]
    # Of the function's calls all were on record, of the requests all but those under way.
    assert Counter(log.read_text().split()).total() == 30
    asked = Counter(json.dumps(body) for body in service.bodies)
    assert len(asked) == 30
    assert asked.total() - 30 <= 3
