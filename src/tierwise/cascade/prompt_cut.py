"""A prompt that the server cut: it counted far fewer tokens than were sent.

Some servers drop the start of a prompt that is longer than their context window, and answer what
is left: Ollama does, with a window that its `num_ctx` sets. Such an answer is about another text.
"""

from __future__ import annotations

from collections.abc import Sequence

from tierwise.errors import PromptCut
from tierwise.policy.catalog import Model
from tierwise.records import Message, Usage

# A server that counts less than this share of our own count has not read the whole prompt. Real
# tokenizers count more than ours does, or a little less: see `text.tokens`.
_LEAST_SHARE = 0.5
# Our tokenizer may need several tokens for one character of a rare script, and a model's own
# tokenizer one. No tokenizer is believed to need fewer tokens than characters divided by this
# (times the share above).
_CHARACTERS_PER_TOKEN = 2
# A prompt this short fits any window, and is too short for a comparison of counts.
_SHORT_PROMPT = 1000  # tokens


def prompt_cut(
    model: Model, messages: Sequence[Message], tokens: int, usage: Usage | None
) -> PromptCut | None:
    """Return the fault of a reply to a prompt that the server cut; None if it read all of it.

    `tokens` is our own count of the prompt. A usage without a count of the prompt says nothing.
    """
    if usage is None or usage.prompt_tokens == 0 or tokens < _SHORT_PROMPT:
        return None
    characters = sum(len(message.content) for message in messages)
    fewest = min(tokens, characters / _CHARACTERS_PER_TOKEN)
    if usage.prompt_tokens >= _LEAST_SHARE * fewest:
        return None
    message = (
        f"the server counted {usage.prompt_tokens:,} of about {round(tokens, -2):,} tokens: "
        "it cut the prompt; raise num_ctx on the server, "
        "or set context_tokens in the catalog to what it reads"
    )
    return PromptCut(message, model=model.name, usage=usage)
