"""The overview: what runs, what it costs, how good it is, and what needs a person."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from tierwise.desk import drawings, overview_facts
from tierwise.desk.access import Viewer
from tierwise.desk.desk import TheDesk
from tierwise.desk.figures import (
    AGES,
    Share,
    by_day,
    quality,
    shares,
    tags_of,
    today,
    total_of,
)
from tierwise.ledger.views.overview import Spending

router = APIRouter()
SPANS = (7, 30, 90)
REFRESH_S = 5  # of the page in a browser


@router.get("/")
def overview(
    desk: TheDesk,
    request: Request,
    person: Viewer,  # noqa: ARG001
    days: Annotated[int, Query(ge=1, le=365)] = 30,
) -> Response:
    """Return the overview."""
    now = time.time()
    last = today(now)
    first = last - days + 1
    runs = overview_facts.all_runs(desk)
    spending = [row for row in overview_facts.all_spending(desk) if row.day >= first]
    daily = by_day(spending, first, last)
    # A point for each day is too many to tell apart where the span is long.
    width = 1 if days <= 14 else 7
    answers = overview_facts.all_answers(desk).by_day
    steps = quality(answers, overview_facts.all_labels(desk), first, width)
    lines = [
        (step, drawings.rate_line(step.points, drawings.lowest_of(step.points)))
        for step in steps
    ]
    return desk.page(
        request,
        "overview.html.j2",
        days=days,
        spans=SPANS,
        refresh_s=REFRESH_S,
        running=overview_facts.running(desk, now),
        total=total_of(spending),
        daily=daily,
        bars=drawings.bars(daily),
        drawing=drawings,
        kinds=_kinds(spending, tags_of(runs)),
        quality=lines,
        budgets=overview_facts.budgets(desk, now),
        used=overview_facts.used,
        waiting=overview_facts.waiting(desk, now),
        ages=[name for name, _ in AGES],
        files=overview_facts.files_facts(desk),
        batches=overview_facts.open_batches(desk),
        newest=[run for run, _ in runs[:8]],
    )


def _kinds(
    spending: Sequence[Spending], tags: Mapping[str, Mapping[str, str]]
) -> list[tuple[str, list[Share]]]:
    """Return the spending by tier, model, step and tag."""

    def tag_names(row: Spending) -> list[str]:
        found = tags.get(row.run_id, {})
        # Every tag of a run has its whole cost, as budgets of tags do.
        return [f"{name}={value}" for name, value in sorted(found.items())] or [
            "no tag"
        ]

    def role_name(row: Spending) -> str:
        return row.model if row.role == "used" else f"{row.model} ({row.role})"

    names: dict[str, Callable[[Spending], Sequence[str]]] = {
        "Tier": lambda row: (row.tier,),
        "Model": lambda row: (role_name(row),),
        "Step": lambda row: (row.step,),
        "Tag": tag_names,
    }
    return [(kind, shares(spending, name_of)) for kind, name_of in names.items()]
