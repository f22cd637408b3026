"""Small worlds in which a confidential document might get out: random rules, catalogs, documents and faults.

A world is run through the real engine, with everything in the house on one stand-in and everything outside on
another. Each document carries words of its own; those of them that the outside saw are what `seen` gives.
"""

from __future__ import annotations

import atexit
import datetime
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.kit.ledgers import migrated_url
from tests.kit.projects import PRICE, make_project, model
from tests.kit.standin import (
    CONTENT_FILTER,
    CUT_OFF,
    OK,
    Fault,
    Request,
    Standin,
    status,
)
from tests.kit.steps import CLASSIFY, SUMMARIZE
from tierwise import __version__
from tierwise.cascade.known_outcomes import Retry
from tierwise.documents import read_documents
from tierwise.documents.redaction.redact import Redaction
from tierwise.engine import Engine
from tierwise.errors import GuardViolation
from tierwise.evidence.training.labelled import Labelled
from tierwise.evidence.training.train import train
from tierwise.gateway.learned.files import save, trained_file
from tierwise.identity import current_of, examples_of
from tierwise.plan import Planner, Sampler
from tierwise.policy.certificates import Certificate, lower_bound, save_certificates
from tierwise.project import CERTIFICATES, Project
from tierwise.records import (
    SENSITIVITIES,
    Batch,
    Document,
    Outcome,
    Sensitivity,
    highest,
    rank,
)
from tierwise.review.queue import edit, waiting

TIERS = {  # what is outside first, as hypothesis likes the first best
    "vendor-a": "proprietary",
    "vendor-b": "proprietary",
    "hosted": "clarifai",
    "local-a": "local",
    "local-b": "local",
    "trained": "local",
}
LEARNED = """
  trained:
    tier: local
    learned: classify
    context_tokens: 100000
    max_output_tokens: 64
"""
INSIDE = [name for name, tier in TIERS.items() if tier == "local"]
OUTSIDE = [name for name, tier in TIERS.items() if tier != "local"]
STEPS = {step.name: step for step in (CLASSIFY, SUMMARIZE)}
LABELS = ["billing", "delivery"]
PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "classify": {"labels": LABELS, "descriptions": {}},
    "summarize": {"max_words": 50},
}
GUARD = {
    "name": "confidential-stays-local",
    "when": {"sensitivity_min": "confidential"},
    "allow_tiers": ["local"],
}
FREE = "{input: 0, output: 0, source: test, date: 2026-11-01}"
# everything that a prompt can see, so that nothing stays in only because a prompt does not ask for it
PROMPT = """---
step: {step}
version: 1
max_output_tokens: 100
---
{{% block system %}}Answer in JSON.{{% endblock %}}
{{% block user %}}{{{{ metadata }}}} {{{{ outcomes }}}} {{{{ part }}}} {{{{ document }}}}{{% endblock %}}
"""
# none after which a call is repeated only after a pause
FAULTS: Mapping[str, Fault] = {
    "good": OK,
    "no object": Fault(text="I would rather not."),
    "wrong label": Fault(text='{"label": "praise", "evidence": "the", "summary": ""}'),
    "invented": Fault(
        text='{"label": "billing", "evidence": "it never came at all", "summary": "9999 euros"}'
    ),
    "cut off": CUT_OFF,
    "refused": CONTENT_FILTER,
    "too many": status(429, retry_after=0),
    "overloaded": status(503, retry_after=0),
    "bad request": status(400),
    "no key": status(401),
    "gone": status(404),
}


@dataclass(frozen=True)
class Paper:
    """A document as a file declares it: a Markdown page with front matter, or a row of a table."""

    form: str = "page"  # or "row"
    declared: Sensitivity | None = None  # None: it says nothing of itself
    learnt: Sensitivity | None = (
        None  # of an outcome that it brings along, which holds its words too
    )
    metadata: Mapping[str, str] = field(default_factory=dict)
    sentences: int = 1

    def words(self, number: int) -> tuple[str, str]:
        """Words by which it is known: a mail address, which redaction finds, and a word that it does not."""
        return f"mail{number}x@secret.example", f"plain{number}x"

    def text(self, number: int) -> str:
        """Words in every sentence, so that no part of it is without."""
        mail, plain = self.words(number)
        return "\n\n".join(
            f"The parcel of {mail} about {plain} has not arrived."
            for _ in range(self.sentences)
        )


@dataclass(frozen=True)
class World:
    """One project, its documents, and what goes wrong."""

    rules: Mapping[str, Any]
    papers: tuple[Paper, ...] = (Paper(),)
    base: Sensitivity = "public"  # what the flow says of all documents
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of models
    certified: tuple[tuple[str, tuple[str, ...]], ...] = ()  # step and chain
    examples: tuple[Sensitivity, ...] = ()  # of the labelled examples, in turn
    faults: tuple[str, ...] = ()  # of the models in the house, in order
    measured: tuple[str, ...] = ()  # in place of the router's choice
    redact_to: Sensitivity | None = None
    steps: tuple[str, ...] = ("classify", "summarize")  # in order
    by: str = "run"  # or "plan", or "sample"
    # a person answers what waits, in the document's words, and all is retried
    again: bool = False


@dataclass(frozen=True)
class Seen:
    """What got out: the words of each paper, and those that may not."""

    out: frozenset[str]
    secret: frozenset[str]
    requests: int

    @property
    def leaked(self) -> frozenset[str]:
        return self.out & self.secret


def run(world: World, inside: Standin, outside: Standin) -> Seen:
    """Run a world through every step and look at what the outside saw."""
    inside.requests.clear()
    outside.requests.clear()
    inside.answer(echo)
    outside.answer(echo)
    inside.faults([FAULTS[name] for name in world.faults])
    with tempfile.TemporaryDirectory(prefix="tierwise-test-") as folder:
        root = _project(Path(folder) / "project", world, inside, outside)
        documents = _documents(Path(folder) / "inbox", world)
        secret = {word for d, p, n in documents for word in _secret(d, p, n, world)}
        derived = tuple(_derived(d, world) for d, _, _ in documents)
        with _engine(world.by, Project(root), derived) as engine:
            run_id = _go_through(engine, world, derived)
            if world.again and not world.measured:  # what is only measured asks nobody
                engine.retry = _answered(engine, run_id, derived)
                _go_through(engine, world, derived)
    bodies = "\n".join(
        json.dumps(request.body, ensure_ascii=False) for request in outside.requests
    )
    words = {word for _, p, n in documents for word in p.words(n)} | set(
        _example_words(world)
    )
    secret |= {
        w
        for w, level in _example_words(world).items()
        if rank(level) >= rank("confidential")
    }
    return Seen(
        frozenset(w for w in words if w in bodies), frozenset(secret), outside.count
    )


def echo(request: Request) -> str:
    """An answer that carries the document's words on."""
    question = next(
        m for m in reversed(request.body["messages"]) if "<document" in m["content"]
    )
    words = " ".join(Request("", {}, {"messages": [question]}).document.split()[:6])
    properties = (request.schema or {}).get("properties", {})
    return json.dumps(
        {name: LABELS[0] if name == "label" else words for name in properties}
    )


def _go_through(engine: Engine, world: World, documents: tuple[Document, ...]) -> str:
    """The run's id."""
    run, batch = engine.start_run("leaks"), Batch(documents)
    for name in world.steps:
        try:
            batch = engine.run_batch(
                run, STEPS[name], batch, PARAMETERS[name], models=world.measured
            )
        except (
            GuardViolation
        ):  # what is measured may not see a document: stopped before anything was sent
            break
    return run.id


def _engine(by: str, project: Project, documents: tuple[Document, ...]) -> Engine:
    """The engine, or what stands in for it while a flow is planned or some of its documents are tried."""
    if by == "sample":
        return Sampler(
            project, "leaks", (document.id for document in documents), env={}
        )
    return (Planner if by == "plan" else Engine)(project, env={})


def _answered(engine: Engine, run_id: str, documents: tuple[Document, ...]) -> Retry:
    """A retry of all, after a person answered what waits with the words of each document."""
    words = {document.id: " ".join(document.text.split()[:6]) for document in documents}
    asked = [
        item
        for item in waiting(engine.ledger, run_id)
        if item.question and item.step in STEPS
    ]
    for item in asked:
        answer = {
            "label": LABELS[0],
            "evidence": words[item.document_id],
            "summary": words[item.document_id],
        }
        fields = STEPS[item.step].returns.model_fields
        edit(
            engine.ledger,
            item,
            json.dumps({name: answer[name] for name in fields}),
            by="Ann",
        )
    return Retry(
        run_id, frozenset(words), frozenset(item.document_id for item in asked)
    )


def _project(root: Path, world: World, inside: Standin, outside: Standin) -> Path:
    entries = [
        _entry(name, inside.url if name in INSIDE else outside.url, world)
        for name in TIERS
    ]
    make_project(root, *entries, rules=json.dumps(world.rules))  # JSON is YAML
    for step in STEPS:
        (root / "prompts" / f"{step}.md.j2").write_text(PROMPT.format(step=step))
    shutil.copytree(_trained(), root / "learned")
    (root / ".tierwise").mkdir()
    migrated_url("sqlite", root / ".tierwise")
    if world.examples:
        _write_examples(root, world)
    _certify(Project(root), world)
    return root


@functools.cache
def _trained() -> Path:
    """A folder with a classifier that knows both labels."""
    folder = Path(tempfile.mkdtemp(prefix="tierwise-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    texts = [
        (f"My {what} number {n}", label)
        for n in range(9)
        for what, label in zip(("bill", "parcel"), LABELS, strict=True)
    ]
    examples = [
        Labelled(str(place), text, label) for place, (text, label) in enumerate(texts)
    ]
    save(train(examples), trained_file(folder, "trained"))
    return folder / "learned"


def _entry(name: str, url: str, world: World) -> str:
    settings = dict(world.settings.get(name, {}))
    strength, price = settings.pop("strength", 10), settings.pop("price", PRICE)
    if name == "trained":
        return LEARNED + f"    strength: {strength}\n    price: {FREE}\n"
    entry = model(
        name, url, tier=TIERS[name], context=700, strength=strength, price=price
    )
    return entry + "".join(f"    {key}: {value}\n" for key, value in settings.items())


def _write_examples(root: Path, world: World) -> None:
    (root / "golden").mkdir()
    rows = [
        {
            "id": word,
            "text": f"The parcel about {word} is late.",
            "label": LABELS[0],
            "sensitivity": level,
        }
        for word, level in _example_words(world).items()
    ]
    (root / "golden" / "classify-examples.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )


def _example_words(world: World) -> dict[str, Sensitivity]:
    count = 20 if world.examples else 0
    return {
        f"example{n}x": world.examples[n % len(world.examples)] for n in range(count)
    }


def _certify(project: Project, world: World) -> None:
    save_certificates(
        project.root / CERTIFICATES,
        [_certificate(project, *certified) for certified in world.certified],
    )


def _certificate(project: Project, step: str, chain: tuple[str, ...]) -> Certificate:
    """Proof that holds today."""
    examples = examples_of(project, step)
    current = current_of(
        project,
        os.environ,
        STEPS[step],
        PARAMETERS[step],
        examples.hash if examples else None,
    )
    # It is never that sure, and hands everything on.
    threshold = 1.0 if chain == ("trained",) else None
    return Certificate(
        step=step,
        **current.evidence(chain, f"{step}.jsonl", threshold),
        prompt=f"{step} v1",
        golden_hash="0" * 64,
        n=100,
        errors=0,
        bound=lower_bound(0, 100),
        threshold=threshold,
        coverage=None if threshold is None else 0.5,
        date=datetime.date.today(),
        tierwise_version=__version__,
    )


def _documents(folder: Path, world: World) -> list[tuple[Document, Paper, int]]:
    """The documents as they are read from files, with what they bring along."""
    folder.mkdir()
    for number, paper in enumerate(world.papers):
        fields = dict(paper.metadata) | (
            {"sensitivity": paper.declared} if paper.declared else {}
        )
        if paper.form == "row":
            row = {"id": "1", "text": paper.text(number), **fields}
            (folder / f"{number}.jsonl").write_text(json.dumps(row))
        else:
            head = "".join(
                f"{key}: {value}\n"
                for key, value in {"kept": paper.words(number)[1], **fields}.items()
            )
            (folder / f"{number}.md").write_text(
                f"---\n{head}---\n{paper.text(number)}"
            )
    read = [
        d
        for batch in read_documents(folder, sensitivity=world.base)
        for d in batch.load()
    ]
    by_number = {
        int(document.metadata["path"].partition(".")[0]): document for document in read
    }
    return [
        (_informed(by_number[n], paper, n), paper, n)
        for n, paper in enumerate(world.papers)
    ]


def _informed(document: Document, paper: Paper, number: int) -> Document:
    if paper.learnt is None:
        return document
    value = {"summary": " ".join(paper.words(number))}
    return document.with_outcome(
        Outcome(step="intake", status="accepted", value=value, sensitivity=paper.learnt)
    )


def _derived(document: Document, world: World) -> Document:
    return (
        Redaction(to=world.redact_to).apply(document) if world.redact_to else document
    )


def _secret(
    document: Document, paper: Paper, number: int, world: World
) -> tuple[str, ...]:
    """The words of a paper that may not get out, by what was declared and not by what tierwise made of it.

    Where redaction could lower it, it must have found the mail address, and the other word may go.
    """
    mail, plain = paper.words(number)
    level = highest(world.base, *(x for x in (paper.declared, paper.learnt) if x))
    if rank(level) < rank("confidential"):
        return ()
    to = world.redact_to or level
    lowered = (
        level == "confidential" and rank(to) < rank(level) and paper.learnt is None
    )
    return (mail,) if lowered else (mail, plain)


def _conditions() -> st.SearchStrategy[dict[str, Any]]:
    some = st.lists
    return st.fixed_dictionaries(
        {},
        optional={
            "step": some(
                st.sampled_from(list(STEPS)), min_size=1, max_size=2, unique=True
            ),
            "sensitivity_min": st.sampled_from(["public", "internal"]),
            "sensitivity_max": st.sampled_from(
                ["internal", "confidential", "restricted"]
            ),
            "tokens_max": st.sampled_from([10, 1000]),
            "stakes": some(
                st.sampled_from(["low", "normal", "high"]), min_size=1, unique=True
            ),
            "language": st.just(["en"]),
            "tags": st.just({"desk": ["legal"]}),
            "outcomes": st.just({"classify.label": LABELS}),
            "budget_used_min": st.just(0.0),
        },
    )


def _routes() -> st.SearchStrategy[list[dict[str, Any]]]:
    names = st.lists(st.sampled_from(list(TIERS)), min_size=2, unique=True)
    choice = st.one_of(
        names.map(lambda n: {"try": n}), st.just({"pick": "cheapest_capable"})
    )
    matched = st.tuples(_conditions().filter(bool), choice).map(
        lambda pair: {"when": pair[0], **pair[1]}
    )
    return st.tuples(st.lists(matched, max_size=3), choice).map(
        lambda parts: [
            {"name": f"route-{n}", **route}
            for n, route in enumerate([*parts[0], parts[1]])
        ]
    )


def rules() -> st.SearchStrategy[dict[str, Any]]:
    """Rules that hold the one guard somewhere among others, which may only forbid more."""
    tiers = st.lists(st.sampled_from(["local", "clarifai", "proprietary"]), unique=True)
    guards = st.lists(st.tuples(_conditions().filter(bool), tiers), max_size=1).map(
        lambda pairs: [
            {"name": f"g{n}", "when": when, "allow_tiers": tiers}
            for n, (when, tiers) in enumerate(pairs)
        ]
    )
    checks = [
        "schema",
        "label",
        "length",
        "grounding",
        "placeholders",
        "language",
        "low_confidence",
    ]
    return st.fixed_dictionaries(
        {
            "version": st.just(1),
            "guards": guards.flatmap(lambda more: st.permutations([GUARD, *more])),
            "routes": _routes(),
            "escalate": st.fixed_dictionaries(
                {
                    "on": st.just(checks)
                    | st.lists(st.sampled_from(checks), unique=True),
                    "most": st.sampled_from([2, 4, 0]),
                }
            ),
        },
        optional={
            "floors": st.fixed_dictionaries(
                {}, optional=dict.fromkeys(STEPS, st.sampled_from([0.5, 0.9, 1.0]))
            ),
            "shadow": st.just({"share": 1.0, "money": 1.0}),
        },
    )


def worlds() -> st.SearchStrategy[World]:
    """Any world."""
    level = st.sampled_from(SENSITIVITIES)
    low = st.sampled_from(["public", "internal"])
    paper = st.builds(
        Paper,
        form=st.sampled_from(["page", "row"]),
        declared=st.none() | level,
        learnt=st.none() | st.none() | level,
        metadata=st.dictionaries(
            st.sampled_from(["desk", "stakes"]), st.sampled_from(["legal", "high"])
        ),
        sentences=st.sampled_from([1, 1, 1, 60]),
    )
    settings = st.fixed_dictionaries(
        {
            "strength": st.integers(0, 100),
            "examples": st.sampled_from([0, 3]),
            "fixed_examples": st.sampled_from([0, 2]),
        }
    )
    chain = st.lists(
        st.sampled_from(list(TIERS)), min_size=1, max_size=3, unique=True
    ).map(tuple)
    return st.builds(
        World,
        rules=rules(),
        papers=st.lists(paper, min_size=2, max_size=4).map(tuple),
        base=low | low | level,
        settings=st.fixed_dictionaries(dict.fromkeys(TIERS, settings)),
        certified=st.lists(
            st.tuples(st.sampled_from(list(STEPS)), chain), max_size=4, unique=True
        ).map(tuple),
        examples=st.lists(level, max_size=4).map(tuple),
        faults=st.lists(st.sampled_from(list(FAULTS)), max_size=8).map(tuple),
        measured=st.just(()) | st.just(()) | st.just(()) | chain,
        steps=st.permutations(list(STEPS)).map(tuple),
        redact_to=st.none() | st.sampled_from(["public", "internal", "confidential"]),
        by=st.sampled_from(["run", "run", "run", "run", "sample", "plan"]),
        again=st.sampled_from([False, False, True]),
    )
