"""The catalog: tiers, models, prices, and the variables that a model needs.

`Model.cost` is the cost of a call; `prices` computes it. Tiers and models are added in the
project's `routing_rules/catalog.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AliasPath,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from tierwise.errors import (
    ConfigError,
    Misuse,
    ModelUnavailable,
    UnknownName,
    unknown_name,
)
from tierwise.policy.addresses import (
    NOT_AN_ADDRESS,
    Undisclosed,
    canonical_address,
    host_and_port,
    host_of,
    in_house,
    moving_variable,
    provider_address,
    provider_fault,
)
from tierwise.policy.batch_settings import (
    BATCH_APIS,
    BatchSettings,
    takes_requests_of,
)
from tierwise.policy.embedders import KIND, EmbedderEntry
from tierwise.policy.image_tokens import image_tokens, most_image_tokens
from tierwise.policy.parameters import OUTPUT_LIMITS, OUTPUT_REMEDY, parameter_fault
from tierwise.policy.prices import Band, BandPrice, Price, billed_band
from tierwise.policy.variables import (
    VARIABLE,
    fill_variables,
    missing_variables,
    texts_in,
    variable_value,
)
from tierwise.policy.weights import Weights
from tierwise.records import Transport, Usage, canonical_hash
from tierwise.text.settings import Settings
from tierwise.text.yaml import Location, YamlData, read_yaml


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Names = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_tuple, json_schema_input_type=str | tuple[str, ...]),
]
_KEY_NAME = re.compile(r"(?i)key|token|secret|password|auth")


class Tier(Settings):
    """A destination of data. Documents that a guard keeps local go only to in-house tiers."""

    description: str = Field(description="For people.")
    stays_in_house: bool = Field(
        False,
        description="Its models run on this machine or in a private network; other addresses are "
        "refused.",
    )
    hosts: tuple[str, ...] = Field(
        (), description="Further host names that count as in the house."
    )


class Model(Settings):
    """One catalog entry. `litellm_params` go to LiteLLM unchanged; `${NAME}` is a variable."""

    name: str = Field("", description="Set from the entry's key; leave it out.")
    tier: str = Field(description="The tier that it belongs to.")
    description: str = Field("", description="For people; `tierwise models` shows it.")
    litellm_params: Mapping[str, Any] = Field(
        {},
        repr=False,
        description="LiteLLM's parameters: `model`, and often `api_base` and `api_key`. "
        "What only the server knows goes under `extra_body` and `extra_headers`.",
    )
    context_tokens: Annotated[int, Field(gt=0)] = Field(
        description="The window: prompt and answer together."
    )
    max_output_tokens: Annotated[int, Field(gt=0)] = Field(
        description="The longest answer that may be asked for."
    )
    thinking_tokens: Annotated[int, Field(ge=0)] = Field(
        0,
        description="The tokens that it may think before it answers, on top of the answer's limit. "
        "They are sent within `max_tokens`, reserved and priced.",
    )
    output_limit_parameter: Literal["auto", "max_tokens", "max_completion_tokens"] = (
        Field(
            "auto",
            description="The server's name of the limit of an answer; `auto`: `max_tokens`, and the "
            "other one once the server refuses it.",
        )
    )
    structured_output: Literal["grammar", "schema", "instruct"] = Field(
        "schema",
        description="`grammar`: the server enforces a whole JSON schema; "
        "`schema`: all but lengths and ranges; "
        "`instruct`: only the prompt describes it.",
    )
    price: Price | Literal["unknown"] = Field(
        description="USD per million tokens; an `unknown` price never counts as free."
    )
    batch: BatchSettings | None = Field(
        None, description="Its provider's batch API; without it, the model has none."
    )
    strength: Annotated[int, Field(ge=0, le=100)] = Field(
        description="A declared ranking of ability, used without a certificate."
    )
    token_margin: Annotated[float, Field(ge=1)] = Field(
        1.1, description="Estimated tokens times this are an upper bound."
    )
    concurrency: Annotated[int, Field(gt=0)] = Field(
        8, description="How many calls a process makes at once."
    )
    requests_per_minute: Annotated[int, Field(gt=0)] | None = Field(
        None, description="At most N calls in any 60 seconds, for each process."
    )
    tokens_per_minute: Annotated[int, Field(gt=0)] | None = Field(
        None,
        description="At most N tokens in any 60 seconds, prompt and answer together, "
        "for each process.",
    )
    timeout_s: Annotated[float, Field(gt=0)] = Field(
        120, description="Seconds until a call is given up."
    )
    lane: Literal["auto", "lean", "litellm"] = Field(
        "auto",
        description="`lean`: directly to a server with OpenAI's format; `auto`: lean if possible.",
    )
    confidence: bool = Field(
        False,
        description="The server returns token probabilities, so that uncertain answers escalate.",
    )
    vision: bool = Field(
        False,
        description="It sees images: in a step with `sees_pages` it is shown the document's pages.",
    )
    image_tokens: Annotated[int, Field(gt=0)] | None = Field(
        None,
        description="The most tokens that the image of a page takes; by default by the provider's "
        "formula.",
    )
    max_images: Annotated[int, Field(gt=0)] = Field(
        20, description="A document of more pages is not sent to it in such a step."
    )
    weights: Weights | None = Field(None, description="Of an embedded model.")
    learned: str | None = Field(
        None,
        description="The step of a trained classifier, used instead of a language model.",
    )
    embedder: Names = Field(
        (),
        description="One or more entries with `kind: embedder`. A trained classifier learns from "
        "their vectors, in place of TF-IDF; `examples` selects the nearest by the vectors of one.",
    )
    terms: bool = Field(
        False,
        description="A trained classifier with `embedder` learns from TF-IDF, too.",
    )
    examples: Annotated[int, Field(ge=0, le=50)] = Field(
        0,
        description="Few-shot examples in its prompt: the N nearest labelled examples.",
    )
    fixed_examples: Annotated[int, Field(ge=0, le=50)] = Field(
        0,
        description="Few-shot examples, N for each label, the same for every document, so that "
        "servers can cache them.",
    )
    same_as: str | None = Field(
        None,
        description="An earlier address, or another entry, with exactly this model: what was paid "
        "and certified there stays valid. For a model that moves.",
    )
    verified: bool = Field(
        True, description="`false`: the address or name has not been tested."
    )
    retires: date | None = Field(
        None, description="When the provider stops serving it."
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_like(cls, data: Any) -> Any:
        """Report an unknown `like` at that setting, instead of every setting that is missing."""
        # `_entry` resolves `like`. It leaves the setting, with an error message, only on failure.
        if isinstance(data, dict) and "like" in data:
            message = str(data["like"])
            kind = PydanticCustomError("like", "{wrong}", {"wrong": message})
            fault = InitErrorDetails(type=kind, loc=("like",), input=None)
            raise ValidationError.from_exception_data("Model", [fault])
        return data

    @model_validator(mode="before")
    @classmethod
    def _learned_uses_grammar(cls, data: Any) -> Any:
        """Set `grammar` for a learned model: it fills in the schema, so it needs the limits too."""
        if isinstance(data, dict) and data.get("learned"):
            return {**data, "structured_output": "grammar"}
        return data

    def answer_params(self, env: Mapping[str, str]) -> dict[str, Any]:
        """Return the parameters that answers depend on: all but keys, with variables filled in.

        Raises ModelUnavailable if a variable is not set.
        """
        params = _without_keys(self.litellm_params)
        missing = missing_variables(params, env)
        if missing:
            raise self._unset(missing)
        filled: dict[str, Any] = fill_variables(params, env)
        return filled

    def _unset(self, missing: Sequence[str]) -> ModelUnavailable:
        alternatives = [names.replace("|", " or ") for names in missing]
        return ModelUnavailable(f"set {' and '.join(alternatives)}", model=self.name)

    @property
    def uses_terms(self) -> bool:
        """Return True if TF-IDF is among the features of a trained classifier."""
        return self.terms or not self.embedder

    @property
    def uses_few_shot(self) -> bool:
        """Return True if its prompt contains labelled examples."""
        return self.examples + self.fixed_examples > 0

    @property
    def example_embedder(self) -> str:
        """Return the embedder that selects its nearest examples; empty for TF-IDF."""
        return self.embedder[0] if self.examples and self.embedder else ""

    def longest_answer(self, limit: int) -> int:
        """Return the most tokens of an answer to a prompt with this limit, without thoughts."""
        return min(limit, self.max_output_tokens)

    def longest_output(self, limit: int) -> int:
        """Return the most tokens of a reply to a prompt with this limit, thoughts included."""
        return self.longest_answer(limit) + self.thinking_tokens

    def image_tokens_of(self, width: int, height: int) -> int:
        """Return the most tokens of an image of this size."""
        if self.image_tokens is not None:
            return self.image_tokens
        return image_tokens(str(self.litellm_params.get("model", "")), width, height)

    @property
    def most_image_tokens(self) -> int:
        """Return the most tokens of the image of a page."""
        if self.image_tokens is not None:
            return self.image_tokens
        return most_image_tokens(str(self.litellm_params.get("model", "")))

    @property
    def price_date(self) -> str | None:
        """Return the ISO date of the price; None if the price is unknown."""
        if self.price == "unknown":
            return None
        return self.price.date.isoformat()

    def shared_by(self, processes: int) -> Model:
        """Return this model with its limits divided among N processes; no limit is below 1."""
        shares = {}
        for name in ("concurrency", "requests_per_minute", "tokens_per_minute"):
            limit = getattr(self, name)
            # None is no limit, for any number of processes.
            if limit:
                shares[name] = max(1, limit // processes)
        return self.model_copy(update=shares)

    def price_in(self, band: Band) -> BandPrice | None:
        """Return the price of a band; None if the model's price is unknown.

        A band that the catalog does not price costs as much as `online`.
        """
        return None if self.price == "unknown" else self.reduced(self.price, band)

    def reduced(self, online: BandPrice, band: Band) -> BandPrice:
        """Return the price of a band, given that of an online call."""
        flex = None if self.price == "unknown" else self.price.flex
        reduction = {"online": None, "flex": flex, "batch": self.batch}[band]
        return online if reduction is None else reduction.of(online)

    def cost(self, usage: Usage | None, band: Band = "online") -> Decimal | None:
        """Return the USD of a call; None if the price is unknown, or the usage it depends on."""
        price = self.price_in(band)
        if price is None:
            return None
        if price.is_zero:
            return Decimal(0)
        if usage is None:
            return None
        return price.cost(usage)

    def billed(
        self,
        usage: Usage | None,
        transport: Transport = "online",
        service_tier: str | None = None,
    ) -> Decimal | None:
        """Return the USD that the provider bills for a call that was made.

        `service_tier` is the one that the reply reports. None as in `cost`, and where the service
        tier has a price that the catalog does not have.
        """
        band = billed_band(transport, service_tier)
        if band is not None:
            return self.cost(usage, band)
        is_free = self.price != "unknown" and self.price.is_zero
        return Decimal(0) if is_free else None

    def most_cost(
        self, prompt_tokens: int, completion_tokens: int, band: Band = "online"
    ) -> Decimal | None:
        """Return the most USD of a call, whatever the cache does; None if the price is unknown."""
        price = self.price_in(band)
        if price is None:
            return None
        return price.most(prompt_tokens, completion_tokens)

    def missing_variables(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """Return the variables to set before this model can be used; `A|B` means either."""
        weights_file = self.weights.file if self.weights else None
        return missing_variables([self.litellm_params, weights_file], env)

    def host(self, env: Mapping[str, str]) -> str:
        """Return the host that its calls go to, with the port, for people.

        It is never more than the host: an address may contain a password.
        """
        if self.weights or self.learned:
            return "this machine"
        missing = self._missing_address_variables(env)
        if missing:
            return f"(variable {missing[0].replace('|', ' or ')} not set)"
        undisclosed = self.undisclosed_address(env)
        if undisclosed is not None:
            return f"({undisclosed})"
        address = self.address(env)
        if address is None:
            return f"(chosen by LiteLLM for {self._filled_name(env).partition('/')[0]})"
        return host_and_port(address) or "(not a plain http address)"

    def address(self, env: Mapping[str, str]) -> str | None:
        """Return the address that its calls go to.

        Return None if it is not known here: a variable is not set, a server is started for the
        model, or only LiteLLM knows the provider's address.
        """
        if self.weights or self.learned or self._missing_address_variables(env):
            return None
        if self.undisclosed_address(env) is not None:
            return None
        address = fill_variables(self.litellm_params.get("api_base"), env)
        if address is not None:
            return str(address)
        return provider_address(self._filled_name(env), env)

    def moving_variable(self, env: Mapping[str, str]) -> str | None:
        """Return the variable that moves its calls from the provider's own address, if any."""
        if self.weights or self.learned or "api_base" in self.litellm_params:
            return None
        return moving_variable(self._filled_name(env), env)

    def _filled_name(self, env: Mapping[str, str]) -> str:
        """Return LiteLLM's name of the model, with variables filled in."""
        return str(fill_variables(self.litellm_params.get("model"), env))

    def address_variables(self) -> tuple[str, ...]:
        """Return the variables in its address; `A|B` means either."""
        return tuple(VARIABLE.findall(str(self.litellm_params.get("api_base"))))

    def undisclosed_address(self, env: Mapping[str, str]) -> str | None:
        """Return the description of an address that only a flow run knows; None if it is known."""
        for names in self.address_variables():
            value = variable_value(names, env)
            if isinstance(value, Undisclosed):
                return value
        return None

    def _missing_address_variables(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """Return the variables without which the destination of its calls is not known."""
        # Without an address, the destination is the provider, which the model's name begins with.
        text = self.litellm_params.get("api_base")
        if text is None:
            text = str(self.litellm_params.get("model"))
        variables = VARIABLE.findall(str(text))
        return tuple(names for names in variables if variable_value(names, env) is None)

    def resolved_params(self, env: Mapping[str, str]) -> dict[str, Any]:
        """Return `litellm_params` with variables filled in.

        Raises ModelUnavailable if a variable is not set.
        """
        missing = self.missing_variables(env)
        if missing:
            raise self._unset(missing)
        return {
            name: fill_variables(value, env)
            for name, value in self.litellm_params.items()
        }


def _without_keys(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters without keys, which may be changed without changing the model."""
    kept: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            kept[name] = _without_keys(value)
            continue
        from_variable = isinstance(value, str) and VARIABLE.search(value)
        # A name like `max_tokens` fits the pattern too, so the value must come from a variable.
        is_key = name == "api_key" or (from_variable and _KEY_NAME.search(name))
        if not is_key:
            kept[name] = value
    return kept


def _entry(name: str, models: Mapping[str, Any]) -> Any:
    """Return a model's settings with its name, merged over the entry that its `like` refers to.

    If there is no such entry, return only `like`, with the error message as its value.
    """
    own = models[name]
    # Left as it is for the validation, which reports it with its place in the file.
    if not isinstance(own, dict):
        return own
    other = own.get("like")
    if other is None:
        return {"name": name, **own}
    # An entry with a `like` of its own cannot be referred to: there are no chains of `like`.
    entries = [
        key
        for key, entry in models.items()
        if isinstance(entry, dict) and "like" not in entry
    ]
    if str(other) not in entries:
        return {"like": unknown_name("entry of its own", str(other), entries)}
    own_settings = {key: value for key, value in own.items() if key != "like"}
    return {**models[str(other)], "name": name, **own_settings}


def _with_tier_of_server(entry: Any, entries: Mapping[str, Any]) -> Any:
    """Return a trained classifier with the tier of the server that its texts are sent to.

    So guards, routes, reports and the audit trail count it where its texts go, whatever the entry
    says. Without an embedder on a server, it is returned as it is.
    """
    if not isinstance(entry, dict) or not entry.get("learned"):
        return entry
    for server in _servers_of(entry, entries):
        return {**entry, "tier": server.get("tier")}
    return entry


def _servers_of(
    entry: Mapping[str, Any], entries: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """Yield the entries of the servers that embed the texts of a trained classifier."""
    names = _as_tuple(entry.get("embedder") or ())
    if not isinstance(names, tuple | list):
        return  # the validation reports it
    for name in names:
        embedder = entries.get(str(name))
        if not isinstance(embedder, Mapping) or not _is_embedder(embedder):
            continue
        if not embedder.get("weights"):
            yield embedder


def _is_embedder(entry: Any) -> bool:
    """Return True for an entry with a `kind`, as it is written or validated.

    There is one kind, so that another one is a misspelt one: it is refused there.
    """
    if isinstance(entry, Mapping):
        return "kind" in entry
    return isinstance(entry, EmbedderEntry)


def _without_embedders(entries: Any) -> Any:
    if not isinstance(entries, Mapping):
        return entries
    return {name: entry for name, entry in entries.items() if not _is_embedder(entry)}


def _only_embedders(entries: Any) -> Any:
    if not isinstance(entries, Mapping):
        return {}
    return {name: entry for name, entry in entries.items() if _is_embedder(entry)}


class Catalog(Settings):
    """All tiers, models and embedders of a project.

    In the file, models and embedders are entries under `models`. Here they are apart: whatever
    goes through the models for a route, a price or a call never meets an embedder.
    """

    version: Literal[1] = Field(description="The version of this file's format.")
    tiers: Mapping[str, Tier] = Field(description="Each tier by its name.")
    models: Annotated[Mapping[str, Model], BeforeValidator(_without_embedders)] = Field(
        description="Each model by its name. `like: other` starts from another entry's settings."
    )
    # From the same setting, so that a fault in an entry is reported at its place in the file.
    embedders: Annotated[
        Mapping[str, EmbedderEntry], BeforeValidator(_only_embedders)
    ] = Field(
        {},
        validation_alias=AliasPath("models"),
        description="Each embedder by its name: the entries with `kind: embedder`.",
        json_schema_extra={"under": "models"},  # for the reference
    )
    _path: Path | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _resolve_entries(cls, data: Any) -> Any:
        """Set the name of every model, and resolve its `like`."""
        if not isinstance(data, dict):
            return data
        models = data.get("models")
        if not isinstance(models, dict):
            return data
        # A dumped catalog has the embedders apart.
        others = data.get("embedders") or {}
        data = {name: value for name, value in data.items() if name != "embedders"}
        models = {**models, **others}
        entries = {name: _entry(name, models) for name in models}
        placed = {
            name: _with_tier_of_server(entry, entries)
            for name, entry in entries.items()
        }
        return {**data, "models": placed}

    @cached_property
    def hash(self) -> str:
        """Return the SHA-256 (hex) of everything that routing may depend on."""
        return canonical_hash(self.model_dump(mode="json"))

    def model(self, name: str) -> Model:
        """Return the model of that name. Raises UnknownName."""
        if name in self.embedders:
            raise Misuse(not_a_model(name))
        if name not in self.models:
            raise UnknownName("model", name, self.models)
        return self.models[name]

    def embedder(self, name: str) -> EmbedderEntry:
        """Return the embedder of that name. Raises UnknownName."""
        if name not in self.embedders:
            raise UnknownName("embedder", name, self.embedders)
        return self.embedders[name]

    def identity(
        self, model: Model, env: Mapping[str, str], weights: str | None = None
    ) -> str:
        """Return the hash of all that an answer depends on, apart from the prompt.

        It covers the tier, the address, the provider's parameters, the format of answers, and
        `weights`, the hash of an embedded model's file. Keys may change without changing the
        model. Raises ModelUnavailable if a variable that matters is not set.
        """
        params = model.answer_params(env)
        address = self._address(model, params, env)
        if address is not None:
            # The same server written in two ways is one identity.
            params["api_base"] = canonical_address(address)
        return canonical_hash([model.tier, params, weights, model.structured_output])

    def _address(
        self, model: Model, params: Mapping[str, Any], env: Mapping[str, str]
    ) -> str | None:
        """Return the address that stands for a model's server; None for a provider's own."""
        if model.same_as in self.models:
            other = self.models[str(model.same_as)]
            address: str | None = other.answer_params(env).get("api_base")
            return address
        if model.same_as is not None:
            missing = missing_variables(model.same_as, env)
            if missing:
                alternatives = " and ".join(missing).replace("|", " or ")
                raise ModelUnavailable(f"set {alternatives}", model=model.name)
            return str(fill_variables(model.same_as, env))
        undisclosed = model.undisclosed_address(env)
        if undisclosed is not None:
            raise ModelUnavailable(undisclosed, model=model.name)
        own: str | None = params.get("api_base")
        if own is not None or model.weights:
            return own
        # Without `api_base`, LiteLLM reads the address from such a variable, if it is set.
        variable = model.moving_variable(env)
        return None if variable is None else env[variable]

    def host(self, model: Model, env: Mapping[str, str]) -> str:
        """Return the host that a document's text goes to, with the port, for people."""
        for name in model.embedder if model.learned else ():
            if not self.embedders[name].is_embedded:
                return called_as(self.embedders[name]).host(env)
        return model.host(env)

    def unavailable(self, model: Model, env: Mapping[str, str]) -> str | None:
        """Return the reason why a model cannot be used here; None if it can."""
        try:
            params = model.resolved_params(env)
        except ModelUnavailable as error:
            return error.message
        # Embedded and learned models run in this process, so they need no address.
        if model.weights or model.learned:
            return None
        # Only the flow run knows the address, so only it can check it.
        if model.undisclosed_address(env) is not None:
            return None
        address = params.get("api_base")
        tier = self.tiers[model.tier]
        if tier.stays_in_house:
            return _leaves_the_house(address, model.tier, tier)
        if address is not None and host_of(address) is None:
            return f"`api_base` {NOT_AN_ADDRESS}"
        # The provider or the model's name may come from a variable, so the catalog's check has
        # not seen it.
        name = str(params.get("model"))
        return provider_fault(name, has_address=address is not None)

    def embedder_unavailable(
        self, entry: EmbedderEntry, env: Mapping[str, str]
    ) -> str | None:
        """Return the reason why an embedder cannot be used here; None if it can.

        Its files are not looked at.
        """
        missing = entry.missing_variables(env)
        if missing:
            alternatives = [names.replace("|", " or ") for names in missing]
            return f"set {' and '.join(alternatives)}"
        if entry.is_embedded:
            return None
        return self.unavailable(called_as(entry), env)

    def keeps_in_house(self, entry: EmbedderEntry) -> bool:
        """Return True if texts never leave the house on their way to an embedder."""
        return entry.is_embedded or self.tiers[entry.tier].stays_in_house


def called_as(entry: EmbedderEntry) -> Model:
    """Return an embedder's server as a model, for what both have: address, keys and errors."""
    return Model(
        name=entry.name,
        tier=entry.tier,
        litellm_params=entry.litellm_params,
        context_tokens=entry.window_tokens,
        max_output_tokens=1,
        price="unknown",
        strength=0,
        lane="lean",
        timeout_s=entry.timeout_s,
    )


def host_of_embedder(entry: EmbedderEntry, env: Mapping[str, str]) -> str:
    """Return the host that an embedder's texts go to, with the port, for people."""
    if entry.is_embedded:
        return "this machine"
    return called_as(entry).host(env)


def not_a_model(name: str) -> str:
    """Return the sentence for an embedder where a model is wanted."""
    return f"'{name}' is an embedder, which answers no prompt; name a model"


def _leaves_the_house(address: Any, name: str, tier: Tier) -> str | None:
    """Return the reason why calls to an address would leave the house; None if they stay."""
    if address is None:
        return "set `api_base`, or its calls would leave the house"
    host = host_of(address)
    if host is None:
        return (
            "`api_base` must be a plain http address, such as http://10.0.0.5:8000/v1, "
            "to stay in the house"
        )
    if not in_house(address, tier.hosts):
        return f"{host} is outside the house; list it under tiers.{name}.hosts if it is yours"
    return None


def load_catalog(path: Path) -> Catalog:
    """Read and validate catalog.yaml. Raises ConfigError with file and line."""
    source = read_yaml(path)
    catalog = source.validate(Catalog)
    # The first fault is enough here; `tierwise check` reports all.
    for fault in catalog_faults(source, catalog):
        raise fault
    return catalog


def catalog_schema() -> dict[str, Any]:
    """Return the JSON schema of catalog.yaml, for editors: every setting with its description.

    An entry with `like` may leave out every setting, as it starts from another entry's.
    """
    schema = Catalog.model_json_schema(by_alias=False)
    definitions = schema["$defs"]
    for name in ("Model", "EmbedderEntry"):
        _let_start_from_other(definitions[name])
    # An entry is an embedder if it says so, and a model if not.
    del schema["properties"]["embedders"]
    is_embedder = {"properties": {"kind": {"const": KIND}}, "required": ["kind"]}
    schema["properties"]["models"]["additionalProperties"] = {
        "if": is_embedder,
        "then": {"$ref": "#/$defs/EmbedderEntry"},
        "else": {"$ref": "#/$defs/Model"},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _let_start_from_other(entry: dict[str, Any]) -> None:
    """Add `like` to an entry's schema: with it, every other setting may be left out."""
    # An entry's key is its name.
    del entry["properties"]["name"]
    entry["properties"]["like"] = {
        "description": "The entry whose settings this one starts from.",
        "title": "Like",
        "type": "string",
    }
    required = entry.pop("required")
    entry["anyOf"] = [{"required": ["like"]}, {"required": required}]


def embedders_written_in(data: Any) -> frozenset[str]:
    """Return the names of the embedders in a catalog's plain data, be the rest right or wrong."""
    models = data.get("models") if isinstance(data, Mapping) else None
    if not isinstance(models, Mapping):
        return frozenset()
    return frozenset(name for name in models if _is_embedder(_entry(name, models)))


def catalog_faults(source: YamlData, catalog: Catalog) -> Iterator[ConfigError]:
    """Yield the errors that need more than one setting to see."""
    if isinstance(source.data, dict) and "embedders" in source.data:
        message = "embedders are entries under `models`, with `kind: embedder`"
        yield source.error(message, ("embedders",))
    for key, model in catalog.models.items():
        location = ("models", key)
        if model.name != key:
            message = "a model's name is its key; leave `name` out"
            yield source.error(message, (*location, "name"))
        if model.tier not in catalog.tiers:
            message = unknown_name("tier", model.tier, catalog.tiers)
            yield source.error(message, (*location, "tier"))
        yield from _embedder_name_faults(source, catalog, model, location)
        if model.learned:
            yield from _learned_faults(source, model, location)
        else:
            yield from _params_faults(source, model, (*location, "litellm_params"))
        if model.same_as is not None:
            yield from _same_as_faults(source, catalog, model, (*location, "same_as"))
        if model.batch is not None:
            yield from _batch_faults(source, model, model.batch, (*location, "batch"))
    for key, entry in catalog.embedders.items():
        yield from _embedder_faults(source, catalog, entry, ("models", key))


def _embedder_faults(
    source: YamlData, catalog: Catalog, entry: EmbedderEntry, location: Location
) -> Iterator[ConfigError]:
    key = location[-1]
    if entry.name != key:
        message = "an embedder's name is its key; leave `name` out"
        yield source.error(message, (*location, "name"))
    if entry.tier not in catalog.tiers:
        message = unknown_name("tier", entry.tier, catalog.tiers)
        yield source.error(message, (*location, "tier"))
    if entry.is_embedded:
        return
    params = (*location, "litellm_params")
    if "api_base" not in entry.litellm_params:
        message = (
            "an embedder's server needs `api_base`, the address before `/embeddings`"
        )
        yield source.error(message, params)
    yield from _params_faults(source, called_as(entry), params)


def _learned_faults(
    source: YamlData, model: Model, location: Location
) -> Iterator[ConfigError]:
    if model.litellm_params or model.weights or model.uses_few_shot:
        message = "a learned model has no `litellm_params`, `weights` or examples"
        yield source.error(message, location)


def _embedder_name_faults(
    source: YamlData, catalog: Catalog, model: Model, location: Location
) -> Iterator[ConfigError]:
    """Yield the errors of `embedder` and `terms`, wherever they are."""
    place = (*location, "embedder")
    unknown = [name for name in model.embedder if name not in catalog.embedders]
    for name in unknown:
        yield source.error(unknown_name("embedder", name, catalog.embedders), place)
    if len(set(model.embedder)) < len(model.embedder):
        yield source.error("names an embedder twice", place)
    if model.terms and not model.learned:
        message = "only a trained classifier (`learned: STEP`) has `terms`"
        yield source.error(message, (*location, "terms"))
    if not model.embedder or unknown:
        return
    embedders = [catalog.embedders[name] for name in model.embedder]
    if model.learned:
        tiers = {entry.tier for entry in embedders if not entry.is_embedded}
        if len(tiers) > 1:
            message = (
                "its embedders are servers of several tiers "
                f"({', '.join(sorted(tiers))}); take those of one"
            )
            yield source.error(message, place)
    elif not model.examples:
        message = (
            "only a trained classifier (`learned: STEP`), and a model with `examples`, which it "
            "selects, has an embedder"
        )
        yield source.error(message, place)
    elif len(embedders) > 1:
        yield source.error("`examples` are selected by one embedder", place)
    elif embedders[0].tier in catalog.tiers and not catalog.keeps_in_house(
        embedders[0]
    ):
        message = (
            f"{embedders[0].name} is a server outside the house, and examples and documents would "
            "be sent to it; name an embedder with `weights`, or of an in-house tier"
        )
        yield source.error(message, place)


def _batch_faults(
    source: YamlData, model: Model, batch: BatchSettings, location: Location
) -> Iterator[ConfigError]:
    """Yield what is wrong with `batch` in view of the rest of the entry."""
    if model.weights or model.learned:
        message = "only a model of a provider has batches; leave `batch` out"
        yield source.error(message, location)
        return
    if model.price == "unknown" and batch.price is not None:
        message = "a batch price needs the online price too; set `price`"
        yield source.error(message, (*location, "price"))
    provider = str(model.litellm_params.get("model")).partition("/")[0]
    own = BATCH_APIS.get(provider)
    if own is None:
        return
    # An address of its own may be a gateway with another provider's batch API, but the requests
    # stay as they are.
    is_gateway = "api_base" in model.litellm_params
    if batch.api != own and not (is_gateway and takes_requests_of(batch.api, own)):
        message = f"the batch API of `{provider}/` models is `{own}`"
        yield source.error(message, (*location, "api"))


def _same_as_faults(
    source: YamlData, catalog: Catalog, model: Model, location: Location
) -> Iterator[ConfigError]:
    """Yield the error of a `same_as` that is neither an address nor an entry with one."""
    name = str(model.same_as)
    if model.weights or model.learned:
        message = "only a model with an address moves; leave `same_as` out"
        yield source.error(message, location)
    elif name in catalog.models:
        other = catalog.models[name]
        # One step only, so that no chain or circle of `same_as` has to be followed.
        if other is model or other.same_as or "api_base" not in other.litellm_params:
            message = (
                f"`{name}` must be another entry, with an `api_base` of its own "
                "and without `same_as`"
            )
            yield source.error(message, location)
    elif not name.startswith(("http://", "https://", "${")):
        message = unknown_name("entry", name, catalog.models)
        advice = f"{message}, or an address such as http://10.0.0.5:8000/v1"
        yield source.error(advice, location)


def _params_faults(
    source: YamlData, model: Model, location: Location
) -> Iterator[ConfigError]:
    """Yield the parameters for LiteLLM that cannot work, or that would bypass the guards."""
    params = model.litellm_params
    for name, value in params.items():
        message = parameter_fault(name)
        if message is not None:
            yield source.error(message, (*location, name))
        # A `${` that is left after removing all valid variables begins a misspelt one.
        if any("${" in VARIABLE.sub("", text) for text in texts_in(value)):
            message = "a variable is written ${NAME} or ${NAME|OTHER}, in capitals"
            yield source.error(message, (*location, name))
    # YAML has None for a name without a value, which is as good as none.
    for name in ("extra_body", "extra_headers"):
        if not isinstance(params.get(name) or {}, Mapping):
            message = f"`{name}` must be names with values"
            yield source.error(message, (*location, name))
    yield from _limit_faults(source, params, location)
    yield from _destination_faults(source, model, location)


def _limit_faults(
    source: YamlData, params: Mapping[str, Any], location: Location
) -> Iterator[ConfigError]:
    """Yield what would replace or drop the limit of an answer, on which reservations rest."""
    extra_body = params.get("extra_body")
    for name in OUTPUT_LIMITS:
        if isinstance(extra_body, Mapping) and name in extra_body:
            message = f"extra_body cannot have `{name}`; {OUTPUT_REMEDY}"
            yield source.error(message, (*location, "extra_body", name))
        if name in texts_in(params.get("additional_drop_params")):
            message = (
                f"`{name}` cannot be dropped, or answers would cost more than is reserved; "
                f"{OUTPUT_REMEDY}"
            )
            yield source.error(message, (*location, "additional_drop_params"))


def _destination_faults(
    source: YamlData, model: Model, location: Location
) -> Iterator[ConfigError]:
    """Yield what is wrong with the address, the provider and the model's name as written."""
    params = model.litellm_params
    name = params.get("model")
    if not isinstance(name, str):
        yield source.error("litellm_params needs `model`", location)
        return
    if "api_base" in params:
        address = params["api_base"]
        # An address from a variable is checked with its value, by `tierwise check`.
        from_variable = isinstance(address, str) and "${" in address
        if not from_variable and host_of(address) is None:
            message = f"`api_base` {NOT_AN_ADDRESS}"
            yield source.error(message, (*location, "api_base"))
    # An embedded model's address is that of its own server.
    has_address = "api_base" in params or model.weights is not None
    fault = provider_fault(name, has_address=has_address)
    if fault is not None and "${" not in name:
        yield source.error(fault, (*location, "model"))
