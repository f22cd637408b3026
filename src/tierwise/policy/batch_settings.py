"""A model's provider batch API: its format, its price, and its limits.

A provider batch API takes many requests in one upload, answers them within a window of hours, and
charges less for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tierwise.policy.prices import ReducedPrice

BatchApi = Literal["openai", "anthropic", "mistral", "gemini", "openrouter", "together"]

# The format of a provider's own batch API, by the prefix of LiteLLM's model names.
BATCH_APIS: Mapping[str, BatchApi] = {
    "openai": "openai",
    "azure": "openai",
    "anthropic": "anthropic",
    "mistral": "mistral",
    "gemini": "gemini",
    "groq": "openai",
    "openrouter": "openrouter",
    "together_ai": "together",
}


# The form of the requests that a batch API takes: those of online calls, as they are.
_BODIES: Mapping[BatchApi, str] = {"anthropic": "anthropic", "gemini": "gemini"}


def takes_requests_of(api: BatchApi, own: BatchApi) -> bool:
    """Return True if a batch API takes the requests of a model whose provider has another one."""
    return _BODIES.get(api, "openai") == _BODIES.get(own, "openai")


class BatchSettings(ReducedPrice):
    """How a model is asked in batches: format, price and limits. One of `discount`, `price`."""

    api: BatchApi = Field(
        description="The format: `openai` (files and batches; also Azure and Groq), `anthropic` "
        "(message batches), `mistral` (jobs), `gemini`, `openrouter` or `together`."
    )
    max_items: Annotated[int, Field(gt=0)] = Field(
        10_000, description="The most requests of one batch."
    )
    max_bytes: Annotated[int, Field(gt=0)] = Field(
        100_000_000, description="The most bytes of one batch's requests."
    )
    max_enqueued_tokens: Annotated[int, Field(gt=0)] | None = Field(
        None,
        description="The most prompt tokens that may wait in all open batches of the model.",
    )
    window_hours: Annotated[float, Field(gt=0)] = Field(
        24, description="Hours after which the provider gives a batch up."
    )
    expected_minutes: Annotated[float, Field(gt=0)] = Field(
        60,
        description="Minutes until a batch is usually done, used until the ledger has seen some.",
    )
    stores_days: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="Days for which the provider keeps requests and answers, for people; none if "
        "it is not known.",
    )

    @model_validator(mode="after")
    def _fit_in_window(self) -> BatchSettings:
        """Refuse an expected duration that is longer than the provider's window."""
        if self.expected_minutes > self.window_hours * 60:
            raise ValueError(
                "`expected_minutes` is longer than `window_hours`; give what is usual"
            )
        return self
