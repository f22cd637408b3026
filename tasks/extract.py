"""extract: fields of a document, each with the quotation that states it; null where it states none.

The fields are given by the flow: `extract.map(batches, returns=ContractTerms)`.
"""

from __future__ import annotations

from pydantic import BaseModel

from tierwise import step
from tierwise.steps.checks import fields_are_quoted
from tierwise.steps.correctness import same_fields


class Quoted(BaseModel):
    """A value as it stands in the document, and the passage that states it."""

    quote: str | None
    value: str | None


class Facts(BaseModel):
    """Base of what a flow wants to know: give every field a description, the model reads it."""

    @classmethod
    def questions(cls) -> dict[str, str]:
        """Field names and their descriptions, for the prompt."""
        return {
            name: info.description or name for name, info in cls.model_fields.items()
        }


extract = step(
    "extract", returns=Facts, checks=[fields_are_quoted], correct=same_fields()
)
