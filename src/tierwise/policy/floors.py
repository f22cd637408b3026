"""Floors: the least quality that the rules ask of a step.

A floor is a share of right answers, or the most by which answers may be worse than those of a
reference model on the same golden items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag

from tierwise.text.settings import Settings


def _refuse_percent(share: Any) -> Any:
    """Refuse a share that was written in percent or in points, and say what was meant."""
    if isinstance(share, int | float) and 2 <= share <= 100:
        raise ValueError(f"a share is at most 1: write {share / 100:g} for {share:g} %")
    return share


# as the JSON schema has them
_Share = Annotated[float, Field(ge=0, le=1)]
_OpenShare = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[
    float,
    BeforeValidator(_refuse_percent, json_schema_input_type=_Share),
    Field(ge=0, le=1),
]


class AtMostWorse(Settings):
    """A floor beside a reference: `{at_most_worse: 0.02, than: claude-large}`."""

    at_most_worse: Annotated[
        float,
        BeforeValidator(_refuse_percent, json_schema_input_type=_OpenShare),
        Field(gt=0, lt=1),
    ] = Field(
        description="The share of right answers may be at most this much lower than the "
        "reference's: 0.02 is 2 points of 100.",
    )
    than: str | None = Field(
        None,
        description="The reference, a model of the catalog. Left out: the strongest available "
        "model that is not a trained classifier.",
    )

    @property
    def words(self) -> str:
        """The floor in words."""
        return worse_in_words(self.at_most_worse, self.than)

    def __format__(self, _: str) -> str:
        """Return the words, so that a message can name a floor of either kind."""
        return self.words


def _kind(value: Any) -> str:
    """Return which of the two kinds of floors is meant, so that a fault is one of that kind."""
    return "worse" if isinstance(value, Mapping | AtMostWorse) else "share"


# as it is in rules.yaml
FloorSetting = Annotated[
    Annotated[Probability, Tag("share")] | Annotated[AtMostWorse, Tag("worse")],
    Discriminator(_kind),
]


@dataclass(frozen=True, slots=True)
class PairedFloor:
    """A floor beside a reference, with the references that are strong enough here.

    The first is the one to measure with. A certificate beside any of them counts.
    """

    worse: float
    references: tuple[str, ...]
    is_named: bool  # the rules name the reference

    @property
    def reference(self) -> str | None:
        """The model to compare with; None where no model is left."""
        return self.references[0] if self.references else None

    @property
    def words(self) -> str:
        """The floor in words."""
        return worse_in_words(self.worse, self.reference)

    def __format__(self, _: str) -> str:
        """Return the words, so that a message can name a floor of either kind."""
        return self.words


# as it is decided upon
Floor = float | PairedFloor


def worse_in_words(worse: float, than: str | None) -> str:
    """Return such as `at most 2 points worse than claude-large`."""
    points = round(100 * worse, 6)
    unit = "point" if points == 1 else "points"
    reference = "the strongest model" if than is None else than
    return f"at most {points:g} {unit} worse than {reference}"


def shares_of(floors: Mapping[str, FloorSetting]) -> dict[str, float]:
    """Return the floors that are a share of right answers, by step."""
    return {
        step: floor for step, floor in floors.items() if isinstance(floor, float | int)
    }


def paired_floor(
    setting: AtMostWorse, by_strength: Iterable[str], strengths: Mapping[str, int]
) -> PairedFloor:
    """Return a floor beside a reference, with its references.

    `by_strength` are the models that can be a reference here, the strongest first; `strengths` are
    those of the whole catalog. A model that is at least as strong as the strongest one here is as
    good a reference, though it is not available today.
    """
    if setting.than is not None:
        return PairedFloor(setting.at_most_worse, (setting.than,), is_named=True)
    usable = list(by_strength)
    if not usable:
        return PairedFloor(setting.at_most_worse, (), is_named=False)
    strongest = usable[0]
    as_strong = [
        name
        for name, strength in strengths.items()
        if name != strongest and strength >= strengths[strongest]
    ]
    references = (strongest, *as_strong)
    return PairedFloor(setting.at_most_worse, references, is_named=False)
