"""A catalogue of newcomers' mistakes: a small project, a change, a command, and the text shown.

Each entry is one mistake. The text is all that the command says about it: place, thing, remedy.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

import flows
import tasks
from tests.kit.standin import Standin, unused_address
from tests.kit.terminal import Terminal

FILES = {
    "routing_rules/catalog.yaml": """
        version: 1
        tiers:
          local: {description: here, stays_in_house: true}
        models:
          small:
            tier: local
            litellm_params: {model: openai/small, api_base: "ADDRESS/v1", api_key: none}
            context_tokens: 8000
            max_output_tokens: 1000
            strength: 10
            price: {input: 1, output: 2, source: test, date: 2026-11-01}
        """,
    "routing_rules/rules.yaml": """
        version: 1
        floors: {sorting: 0.9}
        routes:
          - {name: default, try: [small]}
        escalate: {on: [schema, label], most: 1}
        """,
    "prompts/sorting.md.j2": """
        ---
        step: sorting
        version: 1
        max_output_tokens: 80
        ---
        {% block system %}
        One of {{ kinds | join(", ") }}, in at most {{ words }} words.
        {% endblock %}
        {% block user %}
        {{ document }}
        {% endblock %}
        """,
    "tasks/sorting.py": """
        from pydantic import BaseModel

        from tierwise import Document, check, step


        class Sorting(BaseModel):
            label: str


        @check("label")
        def is_a_kind(output: Sorting, document: Document, *, kinds: list[str]) -> str | None:
            return None if output.label in kinds else "another kind"


        sorting = step(
            "sorting", returns=Sorting, choices={"label": "kinds"}, checks=[is_a_kind]
        )
        """,
    "flows/letters.py": """
        from pathlib import Path

        from prefect import flow

        from tasks.sorting import sorting
        from tierwise import RunSummary, read_documents, recorded_run, write_documents


        @flow(name="letters")
        def letters(source: Path = Path("inbox"), budget_usd: float = 1.0) -> RunSummary:
            with recorded_run(budget_usd=budget_usd) as run:
                batches = read_documents(source, sensitivity="internal")
                done = sorting.map(batches, kinds=["order", "complaint"], words=10)
                write_documents(done, Path("out"))
            return run.summary()
        """,
    "golden/sorting.jsonl": "".join(
        f'{{"id": "{n}", "text": "Letter {n}.", "label": "order"}}\n' for n in range(5)
    ),
    "golden/sorting.yaml": "parameters: {kinds: [order, complaint], words: 10}\n",
    "inbox/1.txt": "The desk came broken.\n",
    "flows/__init__.py": "",
    "tasks/__init__.py": "",
}


CHECK = "check --no-flows"
WAITS = "Routes and guards are checked once rules and catalog are right."


@dataclass(frozen=True)
class Mistake:
    """In `file`, `right` was written as `wrong`; then `command` was typed, which said this."""

    title: str
    command: str
    code: int
    said: tuple[str, ...]
    file: str = ""
    right: str = ""
    wrong: str = ""


MISTAKES = [
    Mistake(
        "a misspelt variable in a prompt",
        "check",
        1,
        (
            "flows/letters.py:13: error: nothing of the step sorting uses the parameter 'words';"
            " did you mean 'wrods'?",
            "prompts/sorting.md.j2:7: error: the prompt cannot be filled in: 'wrods' is undefined;"
            " did you mean 'words'? (the call in flows/letters.py:13)",
        ),
        "prompts/sorting.md.j2",
        "{{ words }}",
        "{{ wrods }}",
    ),
    Mistake(
        "an argument that a call forgot",
        "check",
        1,
        (
            "flows/letters.py:13: warning: sorting gets no words here, unlike in"
            " golden/sorting.yaml, so no certificate of it counts for this call; give both the"
            " same, or make this a step of its own in tasks/",
            "prompts/sorting.md.j2:7: error: the prompt cannot be filled in: 'words' is undefined"
            " (the call in flows/letters.py:13)",
        ),
        "flows/letters.py",
        ", words=10",
        "",
    ),
    Mistake(
        "choices that no parameter has",
        "check",
        1,
        (
            "flows/letters.py:13: error: the step sorting takes the values of `label` from the"
            " parameter 'kind', which is not given; did you mean 'kinds'?",
        ),
        "tasks/sorting.py",
        '"label": "kinds"',
        '"label": "kind"',
    ),
    Mistake(
        "a field that the output does not have",
        "check",
        1,
        (
            "tasks/sorting.py:15: error: cannot be imported: UnknownName: no field of Sorting named"
            " 'lable'; did you mean 'label'?",
        ),
        "tasks/sorting.py",
        '"label": "kinds"',
        '"lable": "kinds"',
    ),
    Mistake(
        "a prompt that does not show the document",
        "check",
        1,
        (
            "prompts/sorting.md.j2:1: error: the prompt shows nothing of the document, so all"
            " documents would be asked the same; add {{ document }} to its user block",
        ),
        "prompts/sorting.md.j2",
        "{{ document }}",
        "Which one?",
    ),
    Mistake(
        "a check that does not take what checks get",
        "check",
        1,
        (
            "tasks/sorting.py:10: error: the check label is is_a_kind(output, document, kinds);"
            " checks are called as is_a_kind(output, document, *, parameter, …)",
        ),
        "tasks/sorting.py",
        "document: Document, *, kinds",
        "document: Document, kinds",
    ),
    Mistake(
        "a misspelt step in the rules",
        CHECK,
        1,
        (
            "routing_rules/rules.yaml:2: error: no step named 'sortng'; did you mean 'sorting'?",
            f"1 error, no warnings. {WAITS}",
        ),
        "routing_rules/rules.yaml",
        "sorting: 0.9",
        "sortng: 0.9",
    ),
    Mistake(
        "a misspelt model in a route",
        CHECK,
        1,
        (
            "routing_rules/rules.yaml:4: error: no model named 'smal'; did you mean 'small'?",
            f"1 error, no warnings. {WAITS}",
        ),
        "routing_rules/rules.yaml",
        "[small]",
        "[smal]",
    ),
    Mistake(
        "a misspelt key in the rules",
        CHECK,
        1,
        (
            "routing_rules/rules.yaml:2: error: flors: no setting named 'flors'; did you mean"
            " 'floors'?",
            f"1 error, no warnings. {WAITS}",
        ),
        "routing_rules/rules.yaml",
        "floors",
        "flors",
    ),
    Mistake(
        "a misspelt key in the catalog",
        CHECK,
        1,
        (
            "routing_rules/catalog.yaml:5: error: models → small → context_tokens: Field required",
            "routing_rules/catalog.yaml:8: error: models → small → context_token: no setting named"
            " 'context_token'; did you mean 'context_tokens'?",
            f"2 errors, no warnings. {WAITS}",
        ),
        "routing_rules/catalog.yaml",
        "context_tokens",
        "context_token",
    ),
    Mistake(
        "a bracket that is not closed",
        CHECK,
        1,
        (
            "routing_rules/rules.yaml:4: error: not valid YAML: expected ',' or ']', but got '}'",
            f"1 error, no warnings. {WAITS}",
        ),
        "routing_rules/rules.yaml",
        "[small]}",
        "[small}",
    ),
    Mistake(
        "an address without http",
        CHECK,
        1,
        (
            "routing_rules/catalog.yaml:7: error: `api_base` must be a plain http address, such as"
            " http://10.0.0.5:8000/v1 or https://api.example.com/v1",
            f"1 error, no warnings. {WAITS}",
        ),
        "routing_rules/catalog.yaml",
        "ADDRESS",
        "localhost:8000",
    ),
    Mistake(
        "a variable that is not set",
        CHECK,
        0,
        (
            "routing_rules/rules.yaml:4: warning: documents for sorting will be deferred here: no model of"
            " route 'default' is available for them; set MY_KEY",
        ),
        "routing_rules/catalog.yaml",
        "api_key: none",
        'api_key: "${MY_KEY}"',
    ),
    Mistake(
        "a word where a number belongs",
        CHECK,
        1,
        (
            "prompts/sorting.md.j2:4: error: max_output_tokens: Input should be a valid integer,"
            " unable to parse string as an integer (found 'many')",
        ),
        "prompts/sorting.md.j2",
        "max_output_tokens: 80",
        "max_output_tokens: many",
    ),
    Mistake(
        "a block that is not closed",
        CHECK,
        1,
        (
            "prompts/sorting.md.j2:10: error: not a valid template: Unexpected end of template."
            " Jinja was looking for the following tags: 'endblock'. The innermost block that needs"
            " to be closed is 'block'.",
        ),
        "prompts/sorting.md.j2",
        "{% endblock %}\n{% block user",
        "{% block user",
    ),
    Mistake(
        "a misspelt flow",
        "run leters",
        2,
        ("tierwise: no flow named 'leters'; did you mean 'letters'?",),
    ),
    Mistake(
        "a misspelt option",
        "run letters --sorce inbox",
        2,
        ("tierwise: no option named '--sorce'; did you mean '--source'?",),
    ),
    Mistake(
        "a word where an option takes a number",
        "run letters --budget-usd much",
        2,
        (
            "tierwise: Flow run received invalid parameters: - budget_usd: Input should be a valid"
            " number, unable to parse string as a number",
        ),
    ),
    Mistake(
        "a folder that is not there",
        "plan letters --source no/such",
        2,
        (
            "tierwise: ROOT/no/such: there is no such file or folder; give a folder or a file"
            " (.bmp, .csv, .docm, .docx, .eml, .gif, .htm, .html, .jpeg, .jpg, .json, .jsonl, .md,"
            " .msg, .odp, .ods, .odt, .pdf, .png, .pptm, .pptx, .rtf, .tif, .tiff, .txt, .webp,"
            " .xlsm, .xlsx, .xml, .zip)",
        ),
    ),
    Mistake(
        "a misspelt import",
        "plan letters",
        2,
        (
            "tierwise: flows/letters.py:6: cannot be imported: ImportError: cannot import name"
            " 'reed_documents' from 'tierwise' (PACKAGE/__init__.py)",
        ),
        "flows/letters.py",
        "RunSummary, read_documents",
        "RunSummary, reed_documents",
    ),
    Mistake(
        "a misspelt sensitivity",
        "plan letters",
        2,
        ("tierwise: no sensitivity named 'internl'; did you mean 'internal'?",),
        "flows/letters.py",
        '"internal"',
        '"internl"',
    ),
    Mistake(
        "one batch where a list of them belongs",
        "plan letters",
        2,
        (
            "tierwise: sorting.map takes a list of batches, as read_documents returns it; give a"
            " single batch to sorting.submit",
        ),
        "flows/letters.py",
        "map(batches",
        "map(batches[0]",
    ),
    Mistake(
        "steps outside of a recorded run",
        "plan letters",
        2,
        (
            "tierwise: steps run inside `with recorded_run():`, so that their cost is on record",
        ),
        "flows/letters.py",
        "with recorded_run(budget_usd=budget_usd) as run:",
        "if True:",
    ),
    Mistake(
        "a misspelt step on the command line",
        "certify sortng",
        2,
        ("tierwise: no step named 'sortng'; did you mean 'sorting'?",),
    ),
    Mistake(
        "a run that does not exist",
        "show nope",
        2,
        ("tierwise: no run named 'nope'; known: none",),
    ),
    Mistake(
        "a flow that does not return its summary",
        "run letters",
        2,
        (
            "tierwise: the flow letters returns NoneType; end it with `return run.summary()`",
        ),
        "flows/letters.py",
        "return run.summary()",
        "return None",
    ),
    Mistake(
        "a wrong port, or a server that is down",
        "run letters",
        1,
        (
            "1.txt sorting small: cannot be reached (connection refused at http://WRONG: "
            "is the server running?) (3 tries)",
        ),
        "routing_rules/catalog.yaml",
        "ADDRESS",
        "WRONG",
    ),
    Mistake(
        "a run without the variable of its only model",
        "run letters",
        1,
        (
            "1.txt sorting no acceptable model is left (route default): small: unavailable: set"
            " MY_KEY",
        ),
        "routing_rules/catalog.yaml",
        "api_key: none",
        'api_key: "${MY_KEY}"',
    ),
]


@pytest.fixture
def address() -> Iterator[str]:
    with Standin() as server:
        yield server.url


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project's folder, whose flows and steps can be imported in this process."""
    root = tmp_path / "project"
    for package in (flows, tasks):
        folder = str(root / package.__name__)
        monkeypatch.setattr(package, "__path__", [*package.__path__, folder])
    importlib.invalidate_caches()
    yield root
    for module in ("flows.letters", "tasks.sorting"):
        sys.modules.pop(module, None)


def write_project(root: Path, mistake: Mistake, places: dict[str, str]) -> None:
    for name, text in FILES.items():
        written = dedent(text).lstrip()
        if name == mistake.file:
            assert mistake.right in written
            written = written.replace(mistake.right, mistake.wrong)
        for place, address in places.items():
            written = written.replace(place, address)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(written)


def messages(mistake: Mistake, out: str, err: str) -> list[str]:
    """The lines of a command about the mistake: an error, a finding, or a deferred document."""
    if err.count("tierwise: "):
        return [line for line in err.splitlines() if line.startswith("tierwise: ")]
    lines = [" ".join(line.split()) for line in out.splitlines()]
    if mistake.command.startswith("check"):
        return [line for line in lines if line]
    return [line for line in lines if line.startswith("1.txt sorting")]


def is_a_run(mistake: Mistake) -> bool:
    return mistake.command.startswith("run")


@pytest.mark.parametrize(
    "mistake",
    [mistake for mistake in MISTAKES if not is_a_run(mistake)],
    ids=lambda mistake: mistake.title,
)
def test_a_mistake_is_told_with_place_thing_and_remedy(
    mistake: Mistake, root: Path, address: str, terminal: Terminal
) -> None:
    try_mistake(mistake, root, address, terminal)


@pytest.mark.parametrize(
    "mistake",
    list(filter(is_a_run, MISTAKES)),
    ids=lambda mistake: mistake.title,
)
def test_a_mistake_in_a_run_is_told_with_place_thing_and_remedy(
    mistake: Mistake, prefect_server: str, root: Path, address: str, terminal: Terminal
) -> None:
    try_mistake(mistake, root, address, terminal)


def try_mistake(mistake: Mistake, root: Path, address: str, terminal: Terminal) -> None:
    """Check what a command says about a mistake."""
    wrong = unused_address()
    write_project(root, mistake, {"ADDRESS": address, "WRONG": wrong})
    done = terminal(*mistake.command.split(), cwd=root)
    shown = messages(mistake, done.out, done.err)
    package = str(Path(sys.modules["tierwise"].__file__ or "").parent)
    names = {str(root): "ROOT", package: "PACKAGE", wrong.split("//")[1]: "WRONG"}
    for text, name in names.items():
        shown = [line.replace(text, name) for line in shown]
    assert done.code == mistake.code, done.err
    assert tuple(shown[: len(mistake.said)]) == mistake.said
    assert "Traceback" not in done.err


def test_the_project_without_a_mistake_is_right(
    root: Path, address: str, terminal: Terminal
) -> None:
    """So each text above is about its mistake."""
    write_project(root, Mistake("none", "check", 0, ()), {"ADDRESS": address})
    done = terminal("check", cwd=root)
    assert (done.code, done.out) == (
        0,
        "no errors, no warnings. There are no guards to prove.\n",
    )
