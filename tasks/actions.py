"""actions: what a meeting decided and who does what by when, each with the words of the transcript that show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, Field

from tierwise import step
from tierwise.steps.checks import squeezed, taken_from_the_document


class Decision(BaseModel):
    """Something that was settled."""

    quote: str
    what: str


class Action(BaseModel):
    """Something that somebody has to do. `who` and `when` are words of the transcript; null where nobody said."""

    quote: str
    what: str
    who: str | None
    when: str | None


class Agreed(BaseModel):
    """What a meeting decided, and who does what by when."""

    decisions: list[Decision] = Field(
        json_schema_extra={"maxItems": 2}
    )  # of one part; all parts' may be more
    actions: list[Action] = Field(json_schema_extra={"maxItems": 3})


Item = TypeVar("Item", Decision, Action)


def all_agreed(parts: Sequence[Agreed]) -> Agreed:
    """Return the actions of all parts of a meeting, each once: parts overlap."""
    return Agreed(
        decisions=_each_once(item for part in parts for item in part.decisions),
        actions=_each_once(item for part in parts for item in part.actions),
    )


def _each_once(items: Iterable[Item]) -> list[Item]:
    kept: list[Item] = []
    for item in items:
        if not any(_alike(item, other) for other in kept):
            kept.append(item)
    return kept


def _alike(one: Item, other: Item) -> bool:
    """Whether two say the same, or rest on the same words."""
    if getattr(one, "who", None) != getattr(other, "who", None):
        return False
    quotes = squeezed(one.quote), squeezed(other.quote)
    return (
        squeezed(one.what) == squeezed(other.what)
        or quotes[0] in quotes[1]
        or quotes[1] in quotes[0]
    )


def same_agreed(output: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Right when each expected decision and action is there, under the right name, and there are no others.

    Expected are `{"decisions": [words, …], "actions": [{"who": …, "words": …}, …]}`: words out of its quotation.
    """
    found = [("", d["quote"]) for d in output["decisions"]] + [
        (a["who"] or "", a["quote"]) for a in output["actions"]
    ]
    wanted = [("", words) for words in expected["decisions"]]
    wanted += [(action["who"] or "", action["words"]) for action in expected["actions"]]
    return len(found) == len(wanted) and all(
        any(
            squeezed(who) == squeezed(name) and squeezed(words) in squeezed(quote)
            for name, quote in found
        )
        for who, words in wanted
    )


actions = step(
    "actions",
    returns=Agreed,
    gathers=all_agreed,
    checks=[taken_from_the_document("quote", "who", "when")],
    correct=same_agreed,
)
