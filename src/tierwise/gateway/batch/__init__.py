"""Provider batch APIs: many calls in one upload, answered within hours, for less money.

values         a batch as the provider describes it, its items and their results
endings        what formats share about a batch that is over
door           submits, finds, asks, reads and cancels batches, whichever format the model has
formats        what each format does for the door; find_format chooses
openai         files and batches: OpenAI, Azure, Groq, Together
openrouter     OpenAI's batches without files
anthropic      message batches
mistral        jobs
gemini         batches of Gemini's API
find_by_items  finds a batch where the provider has no place for our key
batch_http     the requests to a batch API, and their errors
batch_faults   refusals and states become our errors; add a provider's code there
lines          the lines of a file of results
"""

from __future__ import annotations

from tierwise.gateway.batch.door import BatchDoor, missing_item
from tierwise.gateway.batch.values import BatchItem, ItemResult, ProviderBatch

__all__ = ["BatchDoor", "BatchItem", "ItemResult", "ProviderBatch", "missing_item"]
