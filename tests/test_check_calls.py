"""`tierwise check` on the calls of steps in flows: every prompt is filled in before money is spent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.kit.projects import make_project, model

FLOW = """
from pathlib import Path

from prefect import flow, task, unmapped
from pydantic import BaseModel

from tasks.tone import tone
from tasks.answer import answer
from tierwise import read_documents, recorded_run

TONES = ["kind", "angry"]

class Other(BaseModel):
    feeling: str

def is_long(document):
    return len(document.text) > 100

@task
def enrich(batch, labels):
    return batch

@flow(name="letters")
def letters(source: Path = Path("inbox"), words: int = 50, limit: int | None = None, *, shout: bool):
    with recorded_run() as run:
        batches = read_documents(source, sensitivity="internal")
        {call}
    return run.summary()
"""
TONE = """
from pydantic import BaseModel

from tierwise import Document, check, step


class Tone(BaseModel):
    label: str
    reason: str


@check("label")
def known(output: Tone, document: Document, *, labels: list[str]) -> str | None:
    return None if output.label in labels else "another label"


tone = step("tone", returns=Tone, choices={"label": "labels"}, checks=[known])
"""
ANSWER = """
from pydantic import BaseModel

from tierwise import step


class Answer(BaseModel):
    text: str


answer = step("answer", returns=Answer)
"""
PROMPT = """---
step: {step}
version: 1
max_output_tokens: 80
---
{{% block system %}}
{system}
{{% endblock %}}
{{% block user %}}
{user}
{{% endblock %}}
"""


class Letters:
    """A project with one flow of two steps."""

    def __init__(self, root: Path) -> None:
        self.root = make_project(root, model("small", "http://127.0.0.1:9"))
        for folder in ("prompts", "tasks", "flows"):
            for path in (self.root / folder).iterdir():
                if path.name != "__init__.py":
                    path.unlink()
        rules = "version: 1\nroutes: [{name: all, try: [small]}]\n"
        self.write("routing_rules/rules.yaml", rules)
        self.write("tasks/tone.py", TONE)
        self.write("tasks/answer.py", ANSWER)
        self.prompt("tone", "One of {{ labels | join(', ') }}.")
        self.prompt("answer", "In {{ words }} words.")
        self.call("tone.map(batches, labels=TONES)")

    def write(self, path: str, text: str) -> None:
        (self.root / path).write_text(dedent(text).lstrip())

    def prompt(self, step: str, system: str, user: str = "{{ document }}") -> None:
        text = PROMPT.format(step=step, system=system, user=user)
        self.write(f"prompts/{step}.md.j2", text)

    def call(self, *calls: str) -> None:
        self.write("flows/letters.py", FLOW.replace("{call}", "\n        ".join(calls)))

    def findings(self) -> list[str]:
        """All findings but those about prices and unused steps, as place, level and message."""
        command = [sys.executable, "-m", "tierwise", "check", "--json"]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True)
        assert done.stdout, done.stderr
        return [
            f"{each['path']}:{each['line']}: {each['level']}: {each['message']}"
            for each in json.loads(done.stdout)["findings"]
            if each["kind"] in ("prompt", "call", "check", "import")
        ]


@pytest.fixture
def letters(tmp_path: Path) -> Letters:
    return Letters(tmp_path / "project")


CALL = 'tone.map(batches, labels=["kind", "angry"])'
ALL = "tone.map(batches, labels=TONES, only=is_long)"


@pytest.mark.parametrize(
    "calls",
    [
        (CALL,),
        (ALL, "answer.map(batches, words=words)"),
        # what only a run can tell counts as right
        ("tone.map(batches, labels=[str(limit)])", "answer.map(batches, words=limit)"),
        ("tone.map(batches, **dict(labels=TONES))",),
        ("tone.submit(batches[0], labels=tuple(TONES), wait_for=[batches])",),
        ("enrich.map(tone.map(batches, labels=TONES), unmapped(TONES))",),
        ("enrich.map([1, 2], TONES)",),
        ("enrich.map(TONES, limit)",),
    ],
)
def test_calls_that_are_right(letters: Letters, calls: tuple[str, ...]) -> None:
    letters.call(*calls)
    assert letters.findings() == []


def test_what_documents_bring_counts_as_there(letters: Letters) -> None:
    """Metadata, a language, and the outcomes of the project's other steps."""
    letters.prompt(
        "answer",
        "{{ metadata.sender | upper }} {{ metadata['to'] }} {{ metadata.get('cc', '') }}",
        "{{ outcomes.tone.label | upper }} {{ language | upper }} {% if part %}{% endif %}",
    )
    letters.call(CALL, "answer.map(batches)")
    assert letters.findings() == []


def test_an_output_model_of_the_flow_has_its_own_fields(letters: Letters) -> None:
    """An earlier call with `returns=` decides what later prompts can read."""
    letters.write("tasks/tone.py", TONE.replace('choices={"label": "labels"}, ', ""))
    letters.prompt("answer", "{{ outcomes.tone.feeling }}")
    letters.call("tone.map(batches, labels=TONES, returns=Other)", "answer.map([])")
    assert letters.findings() == []


@pytest.mark.parametrize(
    ("system", "said"),
    [
        (
            "One of {{ lables | join(', ') }}.",
            "prompts/tone.md.j2:7: error: the prompt cannot be filled in: 'lables' is undefined;"
            " did you mean 'labels'? (the call in flows/letters.py:26)",
        ),
        (
            "{% for label in labels %}\n{{ label.name }}\n{% endfor %}",
            "prompts/tone.md.j2:8: error: the prompt cannot be filled in: 'str object' has no"
            " attribute 'name' (the call in flows/letters.py:26)",
        ),
        (
            "{{ labels }} {{ outcomes.answr.text }}",
            "prompts/tone.md.j2:7: error: the prompt cannot be filled in: 'dict object' has no"
            " attribute 'answr' (the call in flows/letters.py:26)",
        ),
        (
            "{{ labels }} {{ outcomes.answer.txt }}",
            "prompts/tone.md.j2:7: error: the prompt cannot be filled in: 'dict object' has no"
            " attribute 'txt' (the call in flows/letters.py:26)",
        ),
        (
            "{{ labels + 1 }}",
            "prompts/tone.md.j2:7: error: the prompt cannot be filled in: TypeError"
            " (the call in flows/letters.py:26)",
        ),
    ],
)
def test_a_prompt_that_cannot_be_filled_in(
    letters: Letters, system: str, said: str
) -> None:
    letters.prompt("tone", system)
    assert letters.findings() == [said]


def test_a_prompt_without_its_document(letters: Letters) -> None:
    """Every document would be asked the same."""
    letters.prompt("tone", "One of {{ labels }}.", user="Which one?")
    assert letters.findings() == [
        "prompts/tone.md.j2:1: error: the prompt shows nothing of the document, so all documents"
        " would be asked the same; add {{ document }} to its user block"
    ]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            "answer.map(batches, word=50)",
            [
                "flows/letters.py:26: error: nothing of the step answer uses the parameter 'word';"
                " did you mean 'words'?",
                "prompts/answer.md.j2:7: error: the prompt cannot be filled in: 'words' is"
                " undefined; did you mean 'word'? (the call in flows/letters.py:26)",
            ],
        ),
        (
            "answer.map(batches, words=50, onyl=is_long)",
            [
                "flows/letters.py:26: error: nothing of the step answer uses the parameter 'onyl';"
                " did you mean 'only'?",
            ],
        ),
        (
            "answer.map(batches)",
            [
                "prompts/answer.md.j2:7: error: the prompt cannot be filled in: 'words' is"
                " undefined (the call in flows/letters.py:26)",
            ],
        ),
        (
            'tone.map(batches, labels="kind, angry")',
            [
                "flows/letters.py:26: error: 'labels' is a text, and `label` of the step tone takes"
                " one of its values; give a list",
            ],
        ),
        (
            "tone.map(batches, labels=[])",
            [
                "flows/letters.py:26: error: 'labels' is empty, and `label` of the step tone takes"
                " one of its values; give a list",
            ],
        ),
        (
            "tone.map(batches, labels=TONES, returns=Other)",
            [
                "flows/letters.py:26: error: the step tone: no field of Other named 'label';"
                " known: feeling",
            ],
        ),
        (
            "enrich.map(batches, TONES)",
            [
                "flows/letters.py:26: error: enrich.map spreads TONES over the batches, one item"
                " for each; write unmapped(TONES)",
            ],
        ),
        (
            "enrich.map(tone.map(batches, labels=TONES), labels=['a'])",
            [
                "flows/letters.py:26: error: enrich.map spreads ['a'] over the batches, one item"
                " for each; write unmapped(['a'])",
            ],
        ),
    ],
)
def test_a_call_that_is_wrong(letters: Letters, call: str, said: list[str]) -> None:
    letters.call(call)
    assert letters.findings() == said


def test_misspelt_choices(letters: Letters) -> None:
    """The model could answer anything."""
    letters.write(
        "tasks/tone.py", TONE.replace('"label": "labels"', '"label": "lables"')
    )
    assert letters.findings() == [
        "flows/letters.py:26: error: the step tone takes the values of `label` from the parameter"
        " 'lables', which is not given; did you mean 'labels'?"
    ]


@pytest.mark.parametrize(
    "signature",
    ["(output)", "(output, document, labels)", "(output, document, extra, *, labels)"],
)
def test_a_check_with_a_wrong_signature(letters: Letters, signature: str) -> None:
    """It would fail for every answer, after it was paid."""
    annotated = "(output: Tone, document: Document, *, labels: list[str])"
    text = TONE.replace(f"{annotated} -> str | None", signature)
    text = text.replace("output.label in labels", "output.label")
    letters.write("tasks/tone.py", text)
    assert letters.findings() == [
        f"tasks/tone.py:11: error: the check label is known{signature}; checks are called as"
        " known(output, document, *, parameter, …)"
    ]


def test_a_check_whose_parameter_is_not_given(letters: Letters) -> None:
    """It would never be scored."""
    letters.write("tasks/tone.py", TONE.replace("labels: list", "lables: list"))
    assert letters.findings() == [
        "flows/letters.py:26: warning: the check label of the step tone needs the parameter"
        " 'lables', which is not given; did you mean 'labels'?"
    ]


def test_the_calls_of_the_shipped_flows_are_right(tmp_path: Path) -> None:
    root = make_project(tmp_path / "project", model("small", "http://127.0.0.1:9"))
    command = [sys.executable, "-m", "tierwise", "check", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    kinds = {each["kind"] for each in json.loads(done.stdout)["findings"]}
    assert kinds.isdisjoint({"prompt", "call", "check", "import"})
