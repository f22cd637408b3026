"""A project's own checks: their names in the rules, async and slow ones, and those written wrongly."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.kit.projects import RULES, make_project, model
from tests.kit.standin import Standin
from tests.kit.steps import CLASSIFY, GOOD, LABELS, TEXT, Classification, kinds
from tests.kit.terminal import Terminal
from tierwise import check
from tierwise.cascade.checking import Checking, Pace
from tierwise.engine import Engine
from tierwise.errors import ConfigError, Misuse
from tierwise.project import Project
from tierwise.records import Batch, Document, Outcome, Verdict
from tierwise.steps.checks import Check
from tierwise.steps.step import Step

OWN_RULES = RULES + "escalate: {on: [schema, iban]}\n"
DOCUMENT = Document(id="a", text=TEXT, sensitivity="internal")
OUTPUT = Classification(evidence="has not arrived", label="delivery")


@pytest.fixture
def small() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(GOOD)
        yield server


@pytest.fixture
def large() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(json.dumps({"evidence": "my desk", "label": "delivery"}))
        yield server


Run = Callable[..., list[Outcome]]


@pytest.fixture
def run(tmp_path: Path, small: Standin, large: Standin) -> Iterator[Run]:
    """Run CLASSIFY with one check over documents, in a project that escalates on `iban`."""
    root = make_project(
        tmp_path,
        model("small", small.url),
        model("large", large.url, strength=20),
        rules=OWN_RULES,
    )
    with Engine(Project(root), env={}) as engine:

        def run_with(own: Check, *documents: Document) -> list[Outcome]:
            batch = Batch(documents or (DOCUMENT,))
            step = replace(CLASSIFY, checks=(own,))
            done = engine.run_batch(engine.start_run("test"), step, batch, LABELS)
            return [document.outcomes["classify"] for document in done.load()]

        yield run_with


@check("iban")
def mentions_the_desk(output: Classification, document: Document) -> str | None:
    return None if "desk" in output.evidence else "names no desk"


# ---- names --------------------------------------------------------------------------------------


def test_an_own_check_escalates_where_the_rules_name_it(run: Run) -> None:
    [outcome] = run(mentions_the_desk)
    assert kinds(outcome) == [("small", "first", None), ("large", "escalation", None)]
    assert (outcome.status, outcome.model) == ("accepted", "large")


def test_an_own_check_that_the_rules_do_not_name_defers(run: Run) -> None:
    other = replace(mentions_the_desk, name="desk")
    [outcome] = run(other)
    assert kinds(outcome) == [("small", "first", None)]
    assert (outcome.status, outcome.cause) == ("deferred", "failed_checks")


def test_a_misspelt_check_is_refused_before_anything_is_paid(
    tmp_path: Path, small: Standin
) -> None:
    rules = RULES.replace("[small, large]", "[small]")
    rules += "escalate:\n  on: [schema, lable]\n"
    root = make_project(tmp_path, model("small", small.url), rules=rules)
    with Engine(Project(root), env={}) as engine:
        run = engine.start_run("test")
        with pytest.raises(ConfigError) as refused:
            engine.run_batch(run, CLASSIFY, Batch((DOCUMENT,)), LABELS)
    assert str(refused.value).endswith(
        "rules.yaml:8: no check named 'lable'; did you mean 'label'?"
    )
    assert small.count == 0


PROJECTS_OWN = """
from pydantic import BaseModel

from tierwise import Document, check, step
from tierwise.steps.checks import label_is_allowed


class Classification(BaseModel):
    label: str
    evidence: str


@check("iban")
def iban_is_valid(output: BaseModel, document: Document){annotation}:
    {body}


classify = step(
    "classify",
    returns=Classification,
    checks=[label_is_allowed, iban_is_valid],
    choices={{"label": "labels"}},
)
"""


def checked(
    tmp_path: Path, terminal: Terminal, *, rules: str = "", **sources: str
) -> list[str]:
    """The lines of `tierwise check` for a project with these modules in tasks/."""
    root = make_project(
        tmp_path,
        model("small", "http://127.0.0.1:9"),
        rules=RULES.replace("[small, large]", "[small]") + rules,
    )
    for name, source in sources.items():
        (root / "tasks" / f"{name}.py").write_text(source)
    return terminal("check", cwd=root).out.splitlines()


def test_check_knows_the_checks_of_the_steps_and_suggests_the_nearest(
    tmp_path: Path, terminal: Terminal
) -> None:
    classify = PROJECTS_OWN.format(annotation=" -> str | None", body="return None")
    rules = "escalate: {on: [iban, ibann, lable]}\n"
    lines = checked(tmp_path, terminal, rules=rules, classify=classify)
    found = [line for line in lines if "no check named" in line]
    place = "routing_rules/rules.yaml:7: error: "
    assert found == [
        f"{place}no check named 'ibann'; did you mean 'iban'?",
        f"{place}no check named 'lable'; did you mean 'label'?",
    ]


# ---- async and slow checks ----------------------------------------------------------------------


def test_a_check_may_be_async(run: Run) -> None:
    @check("iban")
    async def waits(output: Classification, document: Document) -> str | None:
        await asyncio.sleep(0)
        return None if "desk" in output.evidence else "names no desk"

    [outcome] = run(waits)
    assert (outcome.status, outcome.model) == ("accepted", "large")
    assert Verdict("iban", False, "names no desk") in outcome.attempts[0].verdicts


def test_an_async_check_that_raises_fails(run: Run) -> None:
    @check("iban")
    async def breaks(output: Classification, document: Document) -> str | None:
        await asyncio.sleep(0)
        raise ValueError(document.text)

    [outcome] = run(breaks)
    assert outcome.cause == "failed_checks"
    assert "the check raised ValueError at test_own_checks.py" in outcome.reason


def test_an_async_check_can_be_called_like_any_other() -> None:
    @check("iban")
    async def waits(output: Classification, document: Document) -> str | None:
        await asyncio.sleep(0)
        return "no"

    assert waits(OUTPUT, DOCUMENT, {}) == Verdict("iban", False, "no")


def test_checks_that_wait_do_so_at_the_same_time(run: Run) -> None:
    """Each waits for the other: on one event loop, the first would wait in vain."""
    both = threading.Barrier(2, timeout=20)

    @check("iban")
    def waits(output: Classification, document: Document) -> str | None:
        both.wait()
        return None

    documents = [replace(DOCUMENT, id=name, text=f"{TEXT} {name}") for name in "ab"]
    outcomes = run(waits, *documents)
    assert [outcome.status for outcome in outcomes] == ["accepted", "accepted"]


def test_a_model_answers_while_the_check_of_another_answer_waits(run: Run) -> None:
    """So the time of a check is in no model's latency."""
    second_answered = threading.Event()

    @check("iban")
    def looks_up(output: Classification, document: Document) -> str | None:
        if document.id == "b":
            second_answered.set()
            return None
        assert second_answered.wait(timeout=20)
        return None

    documents = [replace(DOCUMENT, id=name, text=f"{TEXT} {name}") for name in "ab"]
    outcomes = run(looks_up, *documents)
    assert [outcome.status for outcome in outcomes] == ["accepted", "accepted"]


def test_a_check_that_raises_stop_iteration_fails_and_nothing_waits_for_it(
    run: Run,
) -> None:
    """In a thread, that exception could never reach the one who waits for the result."""

    @check("iban")
    def first_line(output: Classification, document: Document) -> str | None:
        return next(iter(()))

    [outcome] = run(first_line)
    assert "the check raised StopIteration" in outcome.reason


def test_a_check_runs_on_the_loop_once_it_was_fast() -> None:
    pace = Pace()
    assert not pace.on_loop
    pace.note(0.0001, on_loop=False)
    assert pace.on_loop


def test_a_check_whose_first_call_imports_something_comes_back_to_the_loop() -> None:
    pace = Pace()
    pace.note(0.3, on_loop=False)
    assert not pace.on_loop
    for _ in range(40):
        pace.note(0.0001, on_loop=False)
    assert pace.on_loop


def test_a_check_that_blocks_the_loop_again_and_again_stays_in_threads() -> None:
    pace = Pace()
    for _ in range(3):
        while not pace.on_loop:
            pace.note(0.0001, on_loop=False)
        pace.note(0.25, on_loop=True)
    for _ in range(1000):
        pace.note(0.0001, on_loop=False)
    assert not pace.on_loop


@pytest.mark.parametrize(
    ("seconds", "threads"), [(0.0001, [False, True, True]), (0.25, [False] * 3)]
)
def test_the_time_of_a_check_decides_where_it_runs(
    seconds: float, threads: list[bool]
) -> None:
    """The clock goes on by `seconds` in each call; the first call always has a thread."""
    now = 0.0
    on_loop = []

    @check("iban")
    def own(output: Classification, document: Document) -> str | None:
        nonlocal now
        now += seconds
        on_loop.append(threading.current_thread() is threading.main_thread())
        return None

    async def three_times() -> None:
        checking = Checking(clock=lambda: now)
        step = replace(CLASSIFY, checks=(own,))
        for _ in range(3):
            verdicts = await checking.verdicts(step, OUTPUT, DOCUMENT, {})
            assert verdicts == (Verdict("schema", True), Verdict("iban", True))
        checking.close()

    asyncio.run(three_times())
    assert on_loop == threads


# ---- checks that are written wrongly ------------------------------------------------------------

REMEDY = (
    "a check returns the reason of a failure as text, or None for a pass; one that judges field "
    "by field returns a mapping of fields to reasons"
)
CALLED = "checks are called as own(output, document, *, parameter, …)"


WRONG_RESULTS = [
    (" -> bool", "return True", f"is annotated to return bool; {REMEDY}"),
    (" -> bool | None", "return 1", f"is annotated to return bool | None; {REMEDY}"),
    ("", "return True", f"has `return True`; {REMEDY}"),
    (
        "",
        "return output.label in document.text",
        f"has `return output.label in document.text`; {REMEDY}",
    ),
    ("", "return not output.label", f"has `return not output.label`; {REMEDY}"),
    ("", 'return ["a"]', f"has `return ['a']`; {REMEDY}"),
]


def test_a_check_that_returns_something_else_is_found_before_any_call(
    tmp_path: Path, terminal: Terminal
) -> None:
    sources = {
        f"classify{number}": PROJECTS_OWN.format(annotation=annotation, body=body)
        for number, (annotation, body, _) in enumerate(WRONG_RESULTS)
    }
    lines = checked(tmp_path, terminal, **sources)
    shown = [line for line in lines if "the check iban" in line]
    assert shown == [
        f"tasks/classify{number}.py:13: error: the check iban {message}"
        for number, (_, _, message) in enumerate(WRONG_RESULTS)
    ]


@pytest.mark.parametrize(
    "source",
    [
        "def own(output, document) -> str | None: return None",
        "def own(output, document) -> 'str | None': return None",
        "def own(output, document) -> None: return None",
        "def own(output, document) -> Literal['no'] | None: return None",
        "def own(output, document) -> Any: return None",
        "def own(output, document) -> 'NameForTypeCheckers': return None",
        "def own(output, document) -> Awaitable[str | None]: return later()",
        "async def own(output, document) -> str | None: return None",
        "def own(output, document): return None if document else 'no'",
        "def own(output, document, *, labels, most=3) -> None: return None",
        "def own(output, document, other=None) -> None: return None",
        "own = lambda output, document: None",
    ],
)
def test_what_may_be_a_reason_is_accepted(source: str) -> None:
    names: dict[str, Any] = {}
    head = (
        "from collections.abc import Awaitable\nfrom typing import Any, Literal\n"
        "async def later(): return None\n"
    )
    exec(head + source, names)
    own = check("own")(names["own"])
    assert own(OUTPUT, DOCUMENT, {"labels": []}).passed is not False


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("def own(output): return None", "(output)"),
        (
            "def own(output, document, labels): return None",
            "(output, document, labels)",
        ),
    ],
)
def test_a_check_that_takes_something_else_is_refused(source: str, shown: str) -> None:
    names: dict[str, Any] = {}
    exec(source, names)
    with pytest.raises(ConfigError) as refused:
        check("own")(names["own"])
    assert refused.value.message == f"the check own is own{shown}; {CALLED}"


def test_a_wrong_result_stops_the_run_with_one_error(run: Run, small: Standin) -> None:
    """It was not plain to see in the code, so one answer had to be paid."""

    @check("iban")
    def own(output, document):  # type: ignore[no-untyped-def]
        return bool(output.label)

    documents = [replace(DOCUMENT, id=name, text=f"{TEXT} {name}") for name in "abc"]
    with pytest.raises(ConfigError) as stopped:
        run(own, *documents)
    assert stopped.value.message == f"the check iban returned True; {REMEDY}"
    assert Path(str(stopped.value.path)).name == "test_own_checks.py"


def test_a_wrong_result_is_not_quoted() -> None:
    """A list or a mapping may hold words of a document."""

    @check("iban")
    def own(output, document):  # type: ignore[no-untyped-def]
        return list(output.model_dump().values())

    @check("iban")
    def by_field(output, document):  # type: ignore[no-untyped-def]
        return {"label": [output.evidence]}

    for wrong, kind in ((own, "list"), (by_field, "dict")):
        with pytest.raises(ConfigError) as stopped:
            wrong(OUTPUT, DOCUMENT, {})
        message = f"the check iban returned a {kind}; {REMEDY}"
        assert stopped.value.message == message


def test_a_reason_of_no_words_is_a_failure_that_says_so() -> None:
    @check("iban")
    def own(output: Classification, document: Document) -> str | None:
        return ""

    assert own(OUTPUT, DOCUMENT, {}) == Verdict(
        "iban", False, "the check gave no reason"
    )


def test_a_parameter_with_a_default_need_not_be_given() -> None:
    @check("iban")
    def own(output: Classification, document: Document, *, most: int = 3) -> str | None:
        return f"most is {most}"

    assert own(OUTPUT, DOCUMENT, {}).reason == "most is 3"
    assert own(OUTPUT, DOCUMENT, {"most": 4}).reason == "most is 4"


def test_a_check_without_a_name_says_how_to_write_it() -> None:
    def own(output: Classification, document: Document) -> str | None:
        return None

    with pytest.raises(Misuse, match='write `@check\\("name"\\)` above the function'):
        check(own)  # type: ignore[arg-type]


def test_a_plain_function_among_the_checks_says_how_to_write_it() -> None:
    def own(output: BaseModel, document: Document) -> str | None:
        return None

    with pytest.raises(Misuse, match="the step classify lists own in `checks`"):
        Step(name="classify", returns=Classification, prompt="classify", checks=(own,))  # type: ignore[arg-type]
