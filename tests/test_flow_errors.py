"""What a run shows when something in it fails: one line with the cause, and the exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from textwrap import dedent

import pytest

import flows
from tests.kit.projects import make_project, model
from tests.kit.standin import Standin
from tests.kit.terminal import Done, Terminal

HEAD = """
from collections.abc import Sequence
from pathlib import Path

from prefect import flow, task
from pydantic import BaseModel

from tasks.classify import classify
from tasks.summarize import summarize
from tierwise import Document, read_documents, recorded_run, step, write_documents

LABELS = ["order", "complaint"]


@flow(name="{name}")
def {name}(source: Path = Path("inbox"), out: Path = Path("out")):
    with recorded_run() as run:
        letters = read_documents(source, sensitivity="internal", batch_size=1)
        done = work(letters)
        write_documents(done, out)
    return run.summary()


"""


@pytest.fixture
def provider() -> Iterator[Standin]:
    with Standin() as server:
        yield server


@pytest.fixture
def root(tmp_path: Path, provider: Standin) -> Path:
    """A project with two letters."""
    root = make_project(tmp_path / "project", model("small", provider.url))
    rules = "version: 1\nroutes: [{name: all, try: [small]}]\n"
    (root / "routing_rules" / "rules.yaml").write_text(rules)
    (root / "inbox").mkdir()
    for number in (1, 2):
        (root / "inbox" / f"{number}.txt").write_text(f"Letter {number}: a desk.")
    return root


_NUMBERS = count(1)
Run = Callable[..., Done]


@pytest.fixture
def run(
    prefect_server: str,
    terminal: Terminal,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Run]:
    """Runs a flow with this body for its work; it is one of the project's flows for this test."""
    name = f"flow_{next(_NUMBERS)}"
    monkeypatch.setattr(flows, "__path__", [*flows.__path__, str(root / "flows")])

    def run(body: str, *options: object) -> Done:
        path = root / "flows" / f"{name}.py"
        path.write_text(HEAD.format(name=name).lstrip() + dedent(body).lstrip())
        importlib.invalidate_caches()
        return terminal("run", name, *options, cwd=root)

    yield run
    sys.modules.pop(f"flows.{name}", None)


def said(done: Done) -> list[str]:
    """The lines about the error; all others are progress."""
    assert "Traceback" not in done.err
    return [line for line in done.err.splitlines() if line.startswith("tierwise: ")]


def test_a_misspelt_variable_in_the_first_of_two_steps(run: Run, root: Path) -> None:
    """The second step's task runs fail for that reason alone, so it is not named."""
    prompt = root / "prompts" / "classify.md.j2"
    prompt.write_text(prompt.read_text().replace("in labels", "in lables"))
    done = run(
        """
        def work(letters):
            sorted_letters = classify.map(letters, labels=LABELS, descriptions={})
            return summarize.map(sorted_letters, max_words=20)
        """
    )
    assert done.code == 2
    [line] = said(done)
    assert "prompts/classify.md.j2" in line
    assert "'lables' is undefined" in line


OWN_TASK = """
@task
def enrich(batch):
    raise LookupError("no customer of that name")

@task
def twice(batch):
    return batch

"""


@pytest.mark.parametrize(
    "work",
    [
        "enrich.map(classify.map(letters, labels=LABELS, descriptions={}))",
        "summarize.map(enrich.map(letters), max_words=20)",
        "summarize.map(twice.map(enrich.map(letters)), max_words=20)",
        "summarize.map([enrich.submit(each) for each in letters], max_words=20)",
        "[enrich(each) for each in letters]",
        "twice.map(twice.map(enrich.map(letters))).result()",
    ],
)
def test_a_task_of_the_project_fails(run: Run, work: str) -> None:
    """With the class, the words and the place, however many tasks wait for it."""
    done = run(OWN_TASK + f"def work(letters):\n    return {work}\n")
    assert done.code == 1
    [line] = said(done)
    assert "raised LookupError: no customer of that name (flows/flow_" in line


def test_a_condition_fails(run: Run) -> None:
    """Its words are left out, as they may quote the document."""
    done = run(
        """
        def is_long(document):
            raise KeyError(document.text)

        def work(letters):
            some = classify.map(letters, labels=LABELS, descriptions={}, only=is_long)
            return summarize.map(some, max_words=20)
        """
    )
    assert done.code == 1
    [line] = said(done)
    assert "classify raised KeyError at flow_" in line
    assert "a desk" not in done.err


def test_a_function_that_gathers_parts_fails(run: Run, root: Path) -> None:
    prompt = (root / "prompts" / "digest.md.j2").read_text()
    prompt = "---\nstep: names\nversion: 1\nmax_output_tokens: 80\n---\n" + (
        "{% block system %}Names.{% endblock %}{% block user %}{{ document }}{% endblock %}"
    )
    (root / "prompts" / "names.md.j2").write_text(prompt)
    (root / "inbox" / "1.txt").write_text("\n\n".join(["A desk for the office."] * 90))
    done = run(
        """
        class Names(BaseModel):
            names: list[str]

        def all_names(parts: Sequence[Names]) -> Names:
            return parts[0].nams

        names = step("names", returns=Names, gathers=all_names)

        def work(letters):
            return summarize.map(names.map(letters, part_tokens=100), max_words=20)
        """
    )
    assert done.code == 1
    [line] = said(done)
    assert "names raised AttributeError at flow_" in line


def test_the_flow_itself_fails(run: Run) -> None:
    done = run('def work(letters):\n    raise ValueError("not on a Sunday")\n')
    assert done.code == 1
    [line] = said(done)
    assert "raised ValueError: not on a Sunday (flows/flow_" in line


def test_the_results_cannot_be_written(run: Run, root: Path) -> None:
    (root / "out").write_text("a file")
    done = run(
        """
        def work(letters):
            return classify.map(letters, labels=LABELS, descriptions={})
        """
    )
    assert done.code == 2
    assert said(done) == [f"tierwise: {root}/out: a file is in the way; name a folder"]


def test_the_results_have_no_room(run: Run) -> None:
    """Any other fault of the disk is an error like others: one line."""
    done = run(
        """
        def work(letters):
            return classify.map(letters, labels=LABELS, descriptions={})
        """,
        "--out",
        "/proc/out",
    )
    assert done.code in (1, 2)
    [line] = said(done)
    assert "/proc/out" in line


def test_a_flow_that_cannot_be_imported(run: Run) -> None:
    """With the file and the line, as `tierwise check` has it."""
    done = run("from tierwise import reed_documents\n")
    assert done.code == 2
    [line] = said(done)
    assert "cannot import name 'reed_documents'" in line
    assert ".py:23: " in line


def test_a_flow_that_is_not_python(run: Run) -> None:
    done = run("def work(letters:\n")
    assert done.code == 2
    [line] = said(done)
    assert "cannot be imported: SyntaxError: '(' was never closed" in line
