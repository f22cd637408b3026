"""The meeting digest on public meetings (QMSum) with real models: time, tokens, and how near it comes to people's.

    python -m benchmarks.meetings --data ../shared/data/qmsum --meetings 2 --models qwen-0.5b

Each meeting is asked its own queries. ROUGE is counted by rouge-score where that is installed; it is not among the
project's dependencies.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from statistics import mean
from typing import Any

from tasks.actions import actions
from tasks.digest import digest
from tasks.minutes import minutes
from tasks.notes import notes
from tierwise.engine import Engine
from tierwise.orchestrate.steps import StepTask
from tierwise.project import Project
from tierwise.records import Attempt, Batch, Document
from tierwise.text.tokens import count_tokens


def read(folder: Path) -> list[dict[str, Any]]:
    """The meetings of the file, each with its text and its queries with people's answers."""
    lines = (folder / "meetings.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def document(meeting: Mapping[str, Any], queries: int) -> Document:
    """A meeting as the flow would read it: with queries, without people's answers to them."""
    own = [
        asked["query"] for asked in meeting["queries"] if not is_general(asked["query"])
    ][:queries]
    metadata = {"queries": json.dumps(own)} if own else {}
    return Document(
        id=meeting["id"],
        text=meeting["text"],
        sensitivity="confidential",
        language="en",
        metadata=metadata,
    )


def is_general(query: str) -> bool:
    """Whether a query asks for the whole meeting."""
    return "whole meeting" in query.casefold()


def run(
    engine: Engine, meeting: Document, models: Sequence[str], part_tokens: int
) -> Document:
    """The meeting after the flow's steps."""
    context = engine.start_run("benchmark of meetings")
    steps: tuple[tuple[StepTask, dict[str, Any]], ...] = (
        (notes, {"queries": (), "part_tokens": part_tokens}),
        (digest, {"queries": (), "max_words": 120}),
        (actions, {"part_tokens": part_tokens}),
        (minutes, {"max_words": 240}),
    )
    for step, parameters in steps:
        [meeting] = engine.run_batch(
            context, step.spec, Batch((meeting,)), parameters, models=tuple(models)
        ).load()
    engine.finish_run(context, "completed")
    return meeting


def show(done: Document) -> None:
    """What each step took and gave, as a table and in full. Seconds are those of the calls, one after the other."""
    print(f"\n{done.id}: {count_tokens(done.text)} tokens\n")
    print(
        "| step | status | calls | prompt tokens | output tokens | seconds |\n|---|---|---|---|---|---|"
    )
    for outcome in done.outcomes.values():
        prompt, answer = tokens(outcome.attempts)
        seconds = sum(attempt.latency_s for attempt in outcome.attempts)
        cells = (
            outcome.step,
            outcome.status,
            len(outcome.attempts),
            prompt,
            answer,
            f"{seconds:.0f}",
        )
        print(f"| {' | '.join(map(str, cells))} |")
    for outcome in done.outcomes.values():
        told = outcome.reason or json.dumps(outcome.value, ensure_ascii=False)
        print(f"\n{outcome.step}: {told}")
    print()


def tokens(attempts: Iterable[Attempt]) -> tuple[int, int]:
    """Prompt and output tokens, as the server counted them."""
    usages = [attempt.usage for attempt in attempts if attempt.usage]
    return sum(u.prompt_tokens for u in usages), sum(
        u.completion_tokens for u in usages
    )


def pairs(meeting: Mapping[str, Any], done: Document) -> list[tuple[str, str, str]]:
    """Of what is answered: the kind of query, a person's answer, and the digest's."""
    found = done.value("digest") or {"summary": "", "answers": []}
    answers = {answer["query"]: answer["answer"] for answer in found["answers"]} | {
        "": found["summary"]
    }
    asked = [
        ("", q) if is_general(q["query"]) else (q["query"], q)
        for q in meeting["queries"]
    ]
    return [
        ("specific" if query else "general", q["summary"], answers[query])
        for query, q in asked
        if answers.get(query)
    ]


def rouge(scored: Sequence[tuple[str, str, str]]) -> None:
    """ROUGE-1, -2 and -L (F1, stemmed) against people's answers; beside it, a baseline of a meeting's first words."""
    if importlib.util.find_spec("rouge_score") is None:
        print("ROUGE: not measured; `pip install rouge-score` first")
        return
    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = import_module("rouge_score.rouge_scorer").RougeScorer(
        kinds, use_stemmer=True
    )
    print("| queries | answered | ROUGE-1 | ROUGE-2 | ROUGE-L |\n|---|---|---|---|---|")
    for kind in dict.fromkeys(kind for kind, _, _ in scored):
        scores = [
            scorer.score(person, answer)
            for other, person, answer in scored
            if other == kind
        ]
        means = " | ".join(
            f"{mean(score[name].fmeasure for score in scores):.3f}" for name in kinds
        )
        print(f"| {kind} | {len(scores)} | {means} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with meetings.jsonl"
    )
    parser.add_argument(
        "--meetings", type=int, default=2, help="how many, the shortest first"
    )
    parser.add_argument(
        "--models", nargs="+", default=["qwen-0.5b"], help="asked in this order"
    )
    parser.add_argument(
        "--queries",
        type=int,
        default=2,
        help="of each meeting's specific queries, how many",
    )
    parser.add_argument("--part-tokens", type=int, default=1500)
    options = parser.parse_args()
    if not (options.data / "meetings.jsonl").exists():
        raise SystemExit(f"skipped: there is no {options.data / 'meetings.jsonl'}")
    scored: list[tuple[str, str, str]] = []
    with Engine(Project.find()) as engine:
        for meeting in sorted(
            read(options.data), key=lambda meeting: len(meeting["text"])
        )[: options.meetings]:
            done = run(
                engine,
                document(meeting, options.queries),
                options.models,
                options.part_tokens,
            )
            show(done)
            first = " ".join(meeting["text"].split()[:80])
            general = [
                q["summary"] for q in meeting["queries"] if is_general(q["query"])
            ]
            scored += [
                *pairs(meeting, done),
                *(("general, by the first 80 words", q, first) for q in general),
            ]
    rouge(scored)


if __name__ == "__main__":
    main()
