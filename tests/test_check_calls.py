"""`tierwise check` on the calls of steps in flows: every prompt is filled in before money is spent."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.kit.projects import make_project, model
from tests.kit.terminal import OwnProcess

KINDS = ("prompt", "call", "check", "import")

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


@dataclass(frozen=True)
class Case:
    """A flow with its own two steps, and what `tierwise check` says about the three.

    A step called `tone` is `tone7` in the project, so that all cases are checked at once.
    """

    number: int
    calls: tuple[str, ...]
    tone: str
    tone_prompt: tuple[str, str]  # the system's part and the user's
    answer_prompt: tuple[str, str]

    def write(self, root: Path) -> None:
        texts = {
            "flows/letters": FLOW.replace("{call}", "\n        ".join(self.calls)),
            "tasks/tone": self.tone,
            "tasks/answer": ANSWER,
        }
        for path, text in texts.items():
            own_text = self._own_names(dedent(text).lstrip())
            (root / f"{path}{self.number}.py").write_text(own_text)
        prompts = {"tone": self.tone_prompt, "answer": self.answer_prompt}
        for step, (system, user) in prompts.items():
            prompt = PROMPT.format(step=step, system=system, user=user)
            path = root / "prompts" / f"{step}{self.number}.md.j2"
            path.write_text(self._own_names(prompt))

    def findings(self, all_findings: list[str]) -> list[str]:
        """Return the findings about this case, with the names as the test wrote them."""
        own_name = re.compile(rf"\b(tone|answer|letters){self.number}\b")
        return [
            own_name.sub(r"\1", finding)
            for finding in all_findings
            if own_name.search(finding)
        ]

    def _own_names(self, text: str) -> str:
        return re.sub(r"\b(tone|answer|letters)\b", rf"\g<1>{self.number}", text)


CALL = 'tone.map(batches, labels=["kind", "angry"])'
ALL = "tone.map(batches, labels=TONES, only=is_long)"
SHOWN = "{{ document }}"
CASES: list[Case] = []


def case(
    *calls: str,
    tone: str = TONE,
    tone_prompt: tuple[str, str] = ("One of {{ labels | join(', ') }}.", SHOWN),
    answer_prompt: tuple[str, str] = ("In {{ words }} words.", SHOWN),
) -> Case:
    """Return a case that is checked with all others."""
    calls = calls or ("tone.map(batches, labels=TONES)",)
    new = Case(len(CASES), calls, tone, tone_prompt, answer_prompt)
    CASES.append(new)
    return new


@pytest.fixture(scope="module")
def checked_letters(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """All findings but those about prices and unused steps, as place, level and message."""
    root = tmp_path_factory.mktemp("letters") / "project"
    make_project(root, model("small", "http://127.0.0.1:9"))
    for folder in ("prompts", "tasks", "flows"):
        for path in (root / folder).iterdir():
            if path.name != "__init__.py":
                path.unlink()
    rules = "version: 1\nroutes: [{name: all, try: [small]}]\n"
    (root / "routing_rules/rules.yaml").write_text(rules)
    for each in CASES:
        each.write(root)
    return [
        f"{each['path']}:{each['line']}: {each['level']}: {each['message']}"
        for each in checked(root)
        if each["kind"] in KINDS
    ]


def checked(root: Path) -> list[dict[str, Any]]:
    """Return what `tierwise check` finds in a project, in a process of its own."""
    done = OwnProcess()("check", "--json", cwd=root)
    assert done.out, done.err
    found: list[dict[str, Any]] = json.loads(done.out)["findings"]
    return found


RIGHT = [
    case(CALL),
    case(ALL, "answer.map(batches, words=words)"),
    # what only a run can tell counts as right
    case("tone.map(batches, labels=[str(limit)])", "answer.map(batches, words=limit)"),
    case("tone.map(batches, **dict(labels=TONES))"),
    case("tone.submit(batches[0], labels=tuple(TONES), wait_for=[batches])"),
    case("enrich.map(tone.map(batches, labels=TONES), unmapped(TONES))"),
    case("enrich.map([1, 2], TONES)"),
    case("enrich.map(TONES, limit)"),
]


@pytest.mark.parametrize("right", RIGHT, ids=lambda right: "; ".join(right.calls))
def test_calls_that_are_right(checked_letters: list[str], right: Case) -> None:
    assert right.findings(checked_letters) == []


WITH_METADATA = case(
    CALL,
    "answer.map(batches)",
    answer_prompt=(
        "{{ metadata.sender | upper }} {{ metadata['to'] }} {{ metadata.get('cc', '') }}",
        "{{ outcomes.tone.label | upper }} {{ language | upper }} {% if part %}{% endif %}",
    ),
)


def test_what_documents_bring_counts_as_there(checked_letters: list[str]) -> None:
    """Metadata, a language, and the outcomes of the project's other steps."""
    assert WITH_METADATA.findings(checked_letters) == []


WITH_OUTPUT_MODEL = case(
    "tone.map(batches, labels=TONES, returns=Other)",
    "answer.map([])",
    tone=TONE.replace('choices={"label": "labels"}, ', ""),
    answer_prompt=("{{ outcomes.tone.feeling }}", SHOWN),
)


def test_an_output_model_of_the_flow_has_its_own_fields(
    checked_letters: list[str],
) -> None:
    """An earlier call with `returns=` decides what later prompts can read."""
    assert WITH_OUTPUT_MODEL.findings(checked_letters) == []


NOT_FILLED_IN = [
    (
        case(tone_prompt=("One of {{ lables | join(', ') }}.", SHOWN)),
        "prompts/tone.md.j2:7: error: the prompt cannot be filled in: 'lables' is undefined;"
        " did you mean 'labels'? (the call in flows/letters.py:26)",
    ),
    (
        case(
            tone_prompt=(
                "{% for label in labels %}\n{{ label.name }}\n{% endfor %}",
                SHOWN,
            )
        ),
        "prompts/tone.md.j2:8: error: the prompt cannot be filled in: 'str object' has no"
        " attribute 'name' (the call in flows/letters.py:26)",
    ),
    (
        case(tone_prompt=("{{ labels }} {{ outcomes.answr.text }}", SHOWN)),
        "prompts/tone.md.j2:7: error: the prompt cannot be filled in: 'dict object' has no"
        " attribute 'answr' (the call in flows/letters.py:26)",
    ),
    (
        case(tone_prompt=("{{ labels }} {{ outcomes.answer.txt }}", SHOWN)),
        "prompts/tone.md.j2:7: error: the prompt cannot be filled in: 'dict object' has no"
        " attribute 'txt' (the call in flows/letters.py:26)",
    ),
    (
        case(tone_prompt=("{{ labels + 1 }}", SHOWN)),
        "prompts/tone.md.j2:7: error: the prompt cannot be filled in: TypeError"
        " (the call in flows/letters.py:26)",
    ),
]


@pytest.mark.parametrize(
    ("broken", "said"),
    NOT_FILLED_IN,
    ids=[broken.tone_prompt[0] for broken, _ in NOT_FILLED_IN],
)
def test_a_prompt_that_cannot_be_filled_in(
    checked_letters: list[str], broken: Case, said: str
) -> None:
    assert broken.findings(checked_letters) == [said]


WITHOUT_DOCUMENT = case(tone_prompt=("One of {{ labels }}.", "Which one?"))


def test_a_prompt_without_its_document(checked_letters: list[str]) -> None:
    """Every document would be asked the same."""
    assert WITHOUT_DOCUMENT.findings(checked_letters) == [
        "prompts/tone.md.j2:1: error: the prompt shows nothing of the document, so all documents"
        " would be asked the same; add {{ document }} to its user block"
    ]


WRONG = [
    (
        case("answer.map(batches, word=50)"),
        [
            "flows/letters.py:26: error: nothing of the step answer uses the parameter 'word';"
            " did you mean 'words'?",
            "prompts/answer.md.j2:7: error: the prompt cannot be filled in: 'words' is"
            " undefined; did you mean 'word'? (the call in flows/letters.py:26)",
        ],
    ),
    (
        case("answer.map(batches, words=50, onyl=is_long)"),
        [
            "flows/letters.py:26: error: nothing of the step answer uses the parameter 'onyl';"
            " did you mean 'only'?",
        ],
    ),
    (
        case("answer.map(batches)"),
        [
            "prompts/answer.md.j2:7: error: the prompt cannot be filled in: 'words' is"
            " undefined (the call in flows/letters.py:26)",
        ],
    ),
    (
        case('tone.map(batches, labels="kind, angry")'),
        [
            "flows/letters.py:26: error: 'labels' is a text, and `label` of the step tone takes"
            " one of its values; give a list",
        ],
    ),
    (
        case("tone.map(batches, labels=[])"),
        [
            "flows/letters.py:26: error: 'labels' is empty, and `label` of the step tone takes"
            " one of its values; give a list",
        ],
    ),
    (
        case("tone.map(batches, labels=TONES, returns=Other)"),
        [
            "flows/letters.py:26: error: the step tone: no field of Other named 'label';"
            " known: feeling",
        ],
    ),
    (
        case("enrich.map(batches, TONES)"),
        [
            "flows/letters.py:26: error: enrich.map spreads TONES over the batches, one item"
            " for each; write unmapped(TONES)",
        ],
    ),
    (
        case("enrich.map(tone.map(batches, labels=TONES), labels=['a'])"),
        [
            "flows/letters.py:26: error: enrich.map spreads ['a'] over the batches, one item"
            " for each; write unmapped(['a'])",
        ],
    ),
]


@pytest.mark.parametrize(
    ("wrong", "said"), WRONG, ids=[wrong.calls[0] for wrong, _ in WRONG]
)
def test_a_call_that_is_wrong(
    checked_letters: list[str], wrong: Case, said: list[str]
) -> None:
    assert wrong.findings(checked_letters) == said


MISSPELT_CHOICES = case(tone=TONE.replace('"label": "labels"', '"label": "lables"'))


def test_misspelt_choices(checked_letters: list[str]) -> None:
    """The model could answer anything."""
    assert MISSPELT_CHOICES.findings(checked_letters) == [
        "flows/letters.py:26: error: the step tone takes the values of `label` from the parameter"
        " 'lables', which is not given; did you mean 'labels'?"
    ]


def with_signature(signature: str) -> Case:
    annotated = "(output: Tone, document: Document, *, labels: list[str])"
    text = TONE.replace(f"{annotated} -> str | None", signature)
    return case(tone=text.replace("output.label in labels", "output.label"))


SIGNATURES = {
    signature: with_signature(signature)
    for signature in (
        "(output)",
        "(output, document, labels)",
        "(output, document, extra, *, labels)",
    )
}


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_check_with_a_wrong_signature(
    checked_letters: list[str], signature: str
) -> None:
    """It would fail for every answer, after it was paid."""
    assert SIGNATURES[signature].findings(checked_letters) == [
        f"tasks/tone.py:11: error: the check label is known{signature}; checks are called as"
        " known(output, document, *, parameter, …)"
    ]


NOT_GIVEN = case(tone=TONE.replace("labels: list", "lables: list"))


def test_a_check_whose_parameter_is_not_given(checked_letters: list[str]) -> None:
    """It would never be scored."""
    assert NOT_GIVEN.findings(checked_letters) == [
        "flows/letters.py:26: warning: the check label of the step tone needs the parameter"
        " 'lables', which is not given; did you mean 'labels'?"
    ]


def test_the_calls_of_the_shipped_flows_are_right(tmp_path: Path) -> None:
    root = make_project(tmp_path / "project", model("small", "http://127.0.0.1:9"))
    kinds = {each["kind"] for each in checked(root)}
    assert kinds.isdisjoint(KINDS)
