"""A project on disk: finds its root, loads and validates its files."""

from __future__ import annotations

import importlib
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from tierwise.errors import ConfigError, Misuse, UnknownName
from tierwise.gateway.learned.files import read_metadata, trained_file
from tierwise.policy.catalog import Catalog, Model, load_catalog
from tierwise.policy.certificates import Certificates, load_certificates
from tierwise.policy.router import Policy
from tierwise.policy.rules import Rules, load_rules
from tierwise.steps.prompts import Prompts, load_prompts
from tierwise.steps.step import Step
from tierwise.text.settings import Settings
from tierwise.text.yaml import YamlData

CATALOG = Path("routing_rules/catalog.yaml")
RULES = Path("routing_rules/rules.yaml")
CERTIFICATES = Path("routing_rules/certificates.yaml")


class Scale(Settings):
    """How work is spread over processes; the part of `[tool.tierwise]` that variables can take the place of."""

    task_runner: Literal["threads", "dask", "ray"] = Field(
        "threads",
        description="Where task runs go: threads of the flow's process, or worker processes of Dask or Ray.",
    )
    workers: int = Field(
        1,
        ge=1,
        description="Processes that share the models' limits; Dask and Ray start as many on this machine.",
    )
    cluster: str | None = Field(
        None,
        description="The address of a Dask scheduler or a Ray cluster that runs already; none is started then.",
    )

    def under(self, env: Mapping[str, str]) -> Scale:
        """With what TIERWISE_TASK_RUNNER, TIERWISE_WORKERS and TIERWISE_CLUSTER say instead. Raises Misuse."""
        given = {
            name: env.get(f"TIERWISE_{name.upper()}") or getattr(self, name)
            for name in Scale.model_fields
        }
        try:
            return Scale.model_validate(given)
        except ValidationError as error:
            fault = error.errors()[0]
            raise Misuse(
                f"TIERWISE_{str(fault['loc'][0]).upper()} is '{fault['input']}': {fault['msg']}"
            ) from None


class ProjectSettings(Scale):
    """`[tool.tierwise]` of a project's pyproject.toml."""

    ledger_url: str | None = Field(
        None,
        description="An SQLAlchemy address of the ledger; left out: SQLite at `.tierwise/ledger.db`.",
    )
    keep_text: Literal["never", "outputs", "all"] = Field(
        "outputs",
        description="What texts the ledger holds: none, answers, or the documents' as well.",
    )
    secrets: Mapping[str, str] = Field(
        {}, description="The Prefect secret blocks that variables come from where they are not set."
    )

    @field_validator("secrets")
    @classmethod
    def _names_alone(cls, secrets: Mapping[str, str]) -> Mapping[str, str]:
        """Who writes a key here by mistake does not get to see it again."""
        for variable, block in secrets.items():
            if not re.fullmatch("[A-Z][A-Z0-9_]*", variable):
                raise ValueError(
                    f"'{variable}' is not a variable's name; write it in capitals, such as CLARIFAI_PAT"
                )
            if not re.fullmatch("[a-z0-9-]+", block):
                raise ValueError(
                    f"{variable} takes the name of a Prefect secret block (a-z, 0-9, -), never the key"
                )
        return secrets


@dataclass(frozen=True)
class Project:
    """The files of one project, loaded on first use. Loading raises ConfigError with file and line."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """The project around a folder (default: TIERWISE_PROJECT, else the current one). Raises Misuse."""
        folder = (start or Path(os.environ.get("TIERWISE_PROJECT", "."))).resolve()
        for candidate in (folder, *folder.parents):
            if (candidate / "routing_rules").is_dir():
                return cls(candidate)
        raise Misuse(
            f"{folder} is in no tierwise project: no folder above it has a routing_rules/ folder"
        )

    @cached_property
    def settings(self) -> ProjectSettings:
        """The project's `[tool.tierwise]`, all defaults where there is none."""
        path = self.root / "pyproject.toml"
        if not path.exists():
            return ProjectSettings()
        try:
            text = path.read_text(encoding="utf-8")
            table = tomllib.loads(text).get("tool", {}).get("tierwise", {})
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"cannot be read: {error}", path=path) from None
        before, found, _ = text.partition("[tool.tierwise]")
        return YamlData(path, table, first_line=before.count("\n") + 1 if found else 1).validate(
            ProjectSettings
        )

    @cached_property
    def catalog(self) -> Catalog:
        """routing_rules/catalog.yaml."""
        return load_catalog(self.root / CATALOG)

    @cached_property
    def prompts(self) -> Prompts:
        """Every template in prompts/."""
        return load_prompts(self.root / "prompts")

    @cached_property
    def rules(self) -> Rules:
        """routing_rules/rules.yaml, its names checked against the catalog and the prompts' steps."""
        return load_rules(
            self.root / RULES, self.catalog, {prompt.head.step for prompt in self.prompts}
        )

    @cached_property
    def certificates(self) -> Certificates:
        """routing_rules/certificates.yaml; none where there is no such file."""
        return load_certificates(self.root / CERTIFICATES)

    @property
    def ledger_url(self) -> str | None:
        """TIERWISE_LEDGER_URL, else the setting, else None for the default."""
        return os.environ.get("TIERWISE_LEDGER_URL") or self.settings.ledger_url

    @property
    def scale(self) -> Scale:
        """How work is spread: the settings, or variables in their place. Raises Misuse for a wrong variable."""
        return self.settings.under(os.environ)

    def policy(self, env: Mapping[str, str]) -> Policy:
        """Catalog and rules with what cannot be used under these variables."""
        missing = unavailable(self.catalog, env, self.root)
        return Policy(
            catalog=self.catalog,
            rules=self.rules,
            certificates=self.certificates,
            unavailable=missing,
        )

    def promised(self, env: Mapping[str, str]) -> Mapping[str, str]:
        """`env` as a flow run has it, to ask what can be used, not to call it: a word for what a secret block holds."""
        words = {
            name: f"from the Prefect secret block {block}"
            for name, block in self.settings.secrets.items()
        }
        return {
            **words,
            **{name: value for name, value in env.items() if value or name not in words},
        }

    def promises(self, model: Model, env: Mapping[str, str]) -> tuple[str, ...]:
        """The Prefect secret blocks that a model's missing variables come from in a flow run."""
        secrets = self.settings.secrets
        missing = (name for names in model.missing_variables(env) for name in names.split("|"))
        return tuple(dict.fromkeys(secrets[name] for name in missing if name in secrets))

    def identity(self, model: Model) -> str:
        """What a model's answers depend on besides the prompt; for a learned one, what it was trained on."""
        try:
            return (
                read_metadata(trained_file(self.root, model.name)).identity
                if model.learned
                else model.identity
            )
        except ConfigError:  # not trained, so not available either
            return model.identity

    def flow_names(self) -> list[str]:
        """The modules in flows/."""
        return sorted(
            p.stem for p in (self.root / "flows").glob("*.py") if not p.stem.startswith("_")
        )

    def load_step(self, name: str) -> Step:
        """The step in `tasks/<name>.py`. Raises UnknownName, ConfigError."""
        known = sorted(
            p.stem for p in (self.root / "tasks").glob("*.py") if not p.stem.startswith("_")
        )
        module_name = name.replace("-", "_")
        if module_name not in known:
            raise UnknownName("step", name, known)
        found = getattr(
            getattr(self._import(f"tasks.{module_name}"), module_name, None), "spec", None
        )
        if not isinstance(found, Step):
            raise ConfigError(f"has no step named '{module_name}'", path=f"tasks/{module_name}.py")
        return found

    def load_flow(self, name: str) -> Any:
        """The Prefect flow in `flows/<name>.py`; dashes may stand for underscores. Raises UnknownName, ConfigError."""
        module_name = name.replace("-", "_")
        if module_name not in self.flow_names():
            raise UnknownName("flow", name, self.flow_names())
        found = getattr(self._import(f"flows.{module_name}"), module_name, None)
        if not hasattr(found, "fn"):
            raise ConfigError(
                f"has no flow function named '{module_name}'", path=f"flows/{module_name}.py"
            )
        return found

    def _import(self, module: str) -> ModuleType:
        """A module of the project; its root comes first on the path."""
        if str(self.root) not in sys.path:
            sys.path.insert(0, str(self.root))
        return importlib.import_module(module)


def unavailable(catalog: Catalog, env: Mapping[str, str], root: Path) -> dict[str, str]:
    """Each model that cannot be used in this project under these variables, and what to do about it."""
    reasons = {
        name: catalog.unavailable(model, env)
        or _without_weights(model, env)
        or _untrained(model, root)
        for name, model in catalog.models.items()
    }
    return {name: reason for name, reason in reasons.items() if reason}


def _without_weights(model: Model, env: Mapping[str, str]) -> str | None:
    """What to do about an embedded model whose weights are not here."""
    from tierwise.gateway.local import weights_present

    if model.weights is None or weights_present(model.weights, env):
        return None
    own = model.weights.own_file(env)
    return (
        f"there is no file {own}"
        if own
        else f"its weights are not here; run `tierwise fetch {model.name}`"
    )


def _untrained(model: Model, root: Path) -> str | None:
    """What to do about a learned model that is not trained, or not by this version."""
    if model.learned is None:
        return None
    path = trained_file(root, model.name)
    if not path.exists():
        return f"it is not trained yet; run `tierwise train {model.learned}`"
    try:
        read_metadata(path)
    except ConfigError as error:
        return error.message
    return None
