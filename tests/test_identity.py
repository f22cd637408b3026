"""Evidence is of one model at one address, one step, one measure: what changes voids it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.golden_sets import (
    RULES,
    certify,
    golden_rows,
    right,
    write_golden,
)
from tests.kit.projects import make_project
from tests.kit.standin import Request, Standin
from tests.kit.terminal import Terminal

ENTRY = """
  {name}:
    tier: local
    litellm_params: {{model: openai/my-model, api_base: "{url}", api_key: none}}
    context_tokens: 8000
    max_output_tokens: 1000
    strength: {strength}
    price: {{input: 1, output: 2, source: test, date: 2026-11-01}}
"""


def wrong(request: Request) -> str:
    """Answer with the other label, and with words of the document."""
    answer = json.loads(right(request))
    labels = {"billing": "delivery", "delivery": "billing"}
    return json.dumps({**answer, "label": labels[answer["label"]]})


@pytest.fixture
def good() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(right)
        yield server


@pytest.fixture
def bad() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(wrong)
        yield server


def project_of(tmp_path: Path, *entries: str) -> Path:
    root = make_project(tmp_path / "project", *entries, rules=RULES)
    write_golden(root, golden_rows())
    return root


def entry(name: str, url: str, strength: int = 10) -> str:
    return ENTRY.format(name=name, url=url, strength=strength)


def void_reasons(terminal: Terminal, root: Path) -> list[str]:
    """Return what `tierwise check` says of void certificates."""
    done = terminal("check", cwd=root)
    return [line for line in done.out.splitlines() if " is void: " in line]


def results(rows: list[dict[str, object]]) -> dict[object, object]:
    return {row["candidate"]: row["right"] for row in rows}


def test_two_servers_behind_one_model_name_are_measured_apart(
    terminal: Terminal, tmp_path: Path, good: Standin, bad: Standin
) -> None:
    """A certificate is of the server that answered, and each server is asked itself."""
    root = project_of(
        tmp_path,
        entry("right-server", f"{good.url}/v1"),
        entry("wrong-server", f"{bad.url}/v1", 20),
    )
    rows = certify(terminal, root, "-m", "right-server", "-m", "wrong-server")
    assert results(rows) == {"right-server": 60, "wrong-server": 0}
    assert (good.count, bad.count) == (60, 60)


def test_a_server_that_is_swapped_behind_its_variable_is_another_model(
    terminal: Terminal,
    tmp_path: Path,
    good: Standin,
    bad: Standin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its certificate is void, and no answer that was paid at the old address is used."""
    root = project_of(tmp_path, entry("server", "${MY_SERVER_URL}"))
    monkeypatch.setenv("MY_SERVER_URL", f"{good.url}/v1")
    assert results(certify(terminal, root)) == {"server": 60}
    assert void_reasons(terminal, root) == []

    monkeypatch.setenv("MY_SERVER_URL", f"{bad.url}/v1")
    assert "model server changed" in void_reasons(terminal, root)[0]
    assert results(certify(terminal, root)) == {"server": 0}
    assert bad.count == 60


def test_without_the_variable_a_certificate_is_not_called_void_by_the_check(
    terminal: Terminal, tmp_path: Path, good: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that cannot reach the server cannot know either; the route says so."""
    root = project_of(tmp_path, entry("server", "${MY_SERVER_URL}"))
    monkeypatch.setenv("MY_SERVER_URL", f"{good.url}/v1")
    certify(terminal, root)
    monkeypatch.delenv("MY_SERVER_URL")
    assert void_reasons(terminal, root) == []


def test_a_pure_move_keeps_certificates_and_paid_answers(
    terminal: Terminal,
    tmp_path: Path,
    good: Standin,
    bad: Standin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`same_as` says that the new address serves exactly the old model."""
    root = project_of(tmp_path, entry("server", "${MY_SERVER_URL}"))
    monkeypatch.setenv("MY_SERVER_URL", f"{good.url}/v1")
    certify(terminal, root)

    catalog = root / "routing_rules" / "catalog.yaml"
    catalog.write_text(catalog.read_text() + f'    same_as: "{good.url}/v1"\n')
    monkeypatch.setenv("MY_SERVER_URL", f"{bad.url}/v1")
    assert void_reasons(terminal, root) == []
    assert results(certify(terminal, root)) == {"server": 60}
    assert bad.count == 0


def test_entries_that_differ_in_nothing_are_refused(
    terminal: Terminal, tmp_path: Path, good: Standin
) -> None:
    root = project_of(
        tmp_path,
        entry("one", f"{good.url}/v1"),
        entry("two", f"{good.url}/v1/", strength=20),
    )
    done = terminal("check", cwd=root)
    assert done.code == 1
    assert (
        "two is the same model as one: same address, parameters and examples; "
        "take one of them out" in done.out
    )


CHANGES = {
    "a check that lets everything pass": (
        "tasks/classify.py",
        "checks=[label_is_allowed, evidence_is_quoted]",
        "checks=[label_is_allowed, evidence_is_quoted, anything]",
        "an earlier step changed",
    ),
    "the measure": (
        "tasks/classify.py",
        'correct=same("label")',
        "correct=labelled",
        "what counts as right changed",
    ),
    "a validator of the output": (
        "tasks/classify.py",
        "    label: str\n",
        "    label: str\n\n    def anything(self) -> None:\n        return None\n\n",
        "an earlier step changed",
    ),
    "criteria for a judge": (
        "golden/classify.yaml",
        "parameters:",
        "rubric: [names the invoice]\nparameters:",
        "what counts as right changed",
    ),
    "re-asks": (
        "routing_rules/rules.yaml",
        "floors:",
        "escalate: {reask: 1}\nfloors:",
        "`escalate` in the rules changed",
    ),
    "the longest answer": (
        "routing_rules/catalog.yaml",
        "max_output_tokens: 1000",
        "max_output_tokens: 20",
        "model server changed",
    ),
    "the tokens of thinking": (
        "routing_rules/catalog.yaml",
        "max_output_tokens: 1000",
        "max_output_tokens: 1000\n    thinking_tokens: 400",
        "model server changed",
    ),
}
ANYTHING = """

@check("house")
def anything(output, document):
    return None


def labelled(output, expected):
    return output["label"] == expected["label"]
"""


@pytest.mark.parametrize("what", CHANGES)
def test_a_certificate_does_not_survive_a_change_of(
    what: str, terminal: Terminal, tmp_path: Path, good: Standin
) -> None:
    root = project_of(tmp_path, entry("server", f"{good.url}/v1"))
    certify(terminal, root)
    assert void_reasons(terminal, root) == []

    name, old, new, reason = CHANGES[what]
    _edit(root / name, old, new)
    if name == "tasks/classify.py":
        _edit(
            root / name,
            "\n\nclass Class",
            ANYTHING + "\n\nclass Class",
        )
        _edit(
            root / name, "from tierwise import step", "from tierwise import check, step"
        )
    lines = void_reasons(terminal, root)
    assert len(lines) == 1, terminal("check", cwd=root).out
    line = lines[0]
    assert reason in line


def test_a_change_inside_a_check_or_a_measure_is_noticed(
    terminal: Terminal, tmp_path: Path, good: Standin
) -> None:
    """The names stay the same; the code that they stand for does not."""
    root = project_of(tmp_path, entry("server", f"{good.url}/v1"))
    task = own_step(root, "own")
    certify_apart(root, "own")
    assert void_reasons(terminal, root) == []

    _edit(
        task,
        "def anything(output, document):\n    return None",
        'def anything(output, document):\n    return "no"',
    )
    assert "an earlier step changed" in void_reasons(terminal, root)[0]
    _edit(task, 'return "no"', "return None  # a comment")
    assert void_reasons(terminal, root) == []
    _edit(task, '== expected["label"]', '!= expected["label"]')
    assert "what counts as right changed" in void_reasons(terminal, root)[0]


def test_a_change_of_an_earlier_step_voids_the_certificate_of_a_step_that_quotes_it(
    terminal: Terminal, tmp_path: Path, good: Standin
) -> None:
    """Only the prompt of `quoting` has the label that `classify` found."""
    root = project_of(tmp_path, entry("server", f"{good.url}/v1"))
    own_step(root, "plain")
    own_step(root, "quoting")
    quotation = "{{ document }}\n{% if outcomes.classify is defined %}so{% endif %}"
    _edit(root / "prompts" / "quoting.md.j2", "{{ document }}", quotation)
    golden = root / "golden" / "quoting.jsonl"
    golden.write_text(golden.read_text().replace("{", '{"outcomes": {}, '))
    certify_apart(root, "plain")
    certify_apart(root, "quoting")
    assert void_reasons(terminal, root) == []

    _edit(root / "golden" / "classify.yaml", "delivery]", "delivery, other]")
    lines = void_reasons(terminal, root)
    assert len(lines) == 1
    assert "for quoting is void" in lines[0]


def own_step(root: Path, name: str) -> Path:
    """Add a step with a check and a measure of the project's own; return its file."""
    text = (root / "tasks" / "classify.py").read_text()
    for old, new in (
        ('"classify"', f'"{name}"'),
        ("classify =", f"{name} ="),
        ("evidence_is_quoted]", "evidence_is_quoted, anything]"),
        ("from tierwise import step", "from tierwise import check, step"),
        ('same("label")', "labelled"),
        ("\n\nclass Class", ANYTHING + "\n\nclass Class"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    task = root / "tasks" / f"{name}.py"
    task.write_text(text)
    prompt = (root / "prompts" / "classify.md.j2").read_text()
    own_prompt = prompt.replace("step: classify", f"step: {name}")
    (root / "prompts" / f"{name}.md.j2").write_text(own_prompt)
    for suffix in ("jsonl", "yaml"):
        golden = root / "golden" / f"classify.{suffix}"
        golden.with_stem(name).write_text(golden.read_text())
    return task


def certify_apart(root: Path, step: str) -> None:
    """Certify in a process of its own: this one has imported another project's `tasks`."""
    command = [sys.executable, "-m", "tierwise", "certify", step, "--yes"]
    subprocess.run(command, cwd=root, check=True, capture_output=True)


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new, 1))
