"""A project on disk: its root, and its files, loaded and validated."""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
import tomllib
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, field_validator

from tierwise.documents.readers.settings import (
    Attachments,
    ReadingSettings,
    Tables,
)
from tierwise.errors import ConfigError, Misuse, ModelUnavailable, UnknownName
from tierwise.policy.addresses import Undisclosed
from tierwise.policy.alerts import AlertSettings
from tierwise.policy.canary_settings import CanarySettings
from tierwise.policy.catalog import Catalog, Model, load_catalog
from tierwise.policy.certificates import Certificates, load_certificates
from tierwise.policy.desk_settings import DeskSettings
from tierwise.policy.embedders import EmbedderEntry
from tierwise.policy.patience import DEFAULT_PATIENCE_S, Patience, patience_seconds
from tierwise.policy.router import Policy
from tierwise.policy.rules import Rules, load_rules, unknown_checks
from tierwise.policy.waiting import DEFAULT as DEFAULT_FAIL_WHEN_WAITING
from tierwise.policy.waiting import FailWhenWaiting, percent_waiting
from tierwise.records import Incomplete, Order
from tierwise.steps.checks import names_made
from tierwise.steps.prompts import Prompts, load_prompts
from tierwise.steps.step import Step
from tierwise.text.files import folder_with
from tierwise.text.settings import Settings
from tierwise.text.yaml import YamlData, read_yaml

if TYPE_CHECKING:
    from tierwise.gateway.learned.classifier import ClassifierMetadata
    from tierwise.text.vectors import Encoder

CATALOG = Path("routing_rules/catalog.yaml")
RULES = Path("routing_rules/rules.yaml")
CERTIFICATES = Path("routing_rules/certificates.yaml")
_MAKERS = {"function_step", "http_step"}  # of steps without a model
_LONGEST_TEXT = 300  # characters of a foreign error's own words


class Scale(Settings):
    """The distribution of work over processes: settings that environment variables can override."""

    task_runner: Literal["threads", "dask", "ray"] = Field(
        "threads",
        description="Task runs use threads of the flow's process, or workers of Dask or Ray.",
    )
    workers: int = Field(
        1,
        ge=1,
        description="Processes that share the models' limits; Dask and Ray start as many here.",
    )
    cluster: str | None = Field(
        None,
        description="The address of a running Dask scheduler or Ray cluster, to be used instead.",
    )

    def with_variables(self, env: Mapping[str, str]) -> Scale:
        """Return the settings, overridden by TIERWISE_TASK_RUNNER, _WORKERS and _CLUSTER.

        Raises Misuse for a wrong variable.
        """
        values: dict[str, Any] = {}
        for name in Scale.model_fields:
            # an empty variable counts as not set
            values[name] = env.get(f"TIERWISE_{name.upper()}") or getattr(self, name)
        try:
            return Scale.model_validate(values)
        except ValidationError as error:
            fault = error.errors()[0]
            variable = f"TIERWISE_{str(fault['loc'][0]).upper()}"
            raise Misuse(f"{variable} is '{fault['input']}': {fault['msg']}") from None


class ProjectSettings(Scale):
    """`[tool.tierwise]` of a project's pyproject.toml."""

    ledger_url: str | None = Field(
        None,
        description="The ledger's SQLAlchemy address; default: SQLite at `.tierwise/ledger.db`.",
    )
    keep_text: Literal["never", "outputs", "all"] = Field(
        "outputs",
        description="The texts that the ledger keeps: none, answers, or documents, too.",
    )
    incomplete: Incomplete = Field(
        "wait_for_pages",
        description="Whether a document goes on that lost a part on reading: `accept` says always, "
        "`wait_for_pages` unless whole pages are missing, `wait` never.",
    )
    tables: Tables = Field(
        "auto",
        description="What a spreadsheet, a JSON or an XML file gives: `rows`, a document for each "
        "row; `document`, one for each sheet or file; `auto`, rows where there is the text column.",
    )
    rows_at: str = Field(
        "",
        description="The path of the rows in JSON and XML files, such as `data.items`; without it, "
        "it is searched for.",
    )
    attachments: Attachments = Field(
        "documents",
        description="Files attached to e-mails: `documents` of their own, or their `names` alone.",
    )
    ocr: bool = Field(
        True,
        description="Text recognition reads scans and pictures, where the extra `ocr` is installed.",
    )
    keep_recognized: bool = Field(
        True,
        description="What text recognition read is kept in `.tierwise/recognized`, so that no run, "
        "review or export repeats it.",
    )
    readers: Mapping[str, str] = Field(
        {},
        description="The project's own readers by the ending of their files: "
        '`".edi" = "readers.edi:read"` for the function `read` of readers/edi.py.',
    )
    patience: Patience = Field(
        DEFAULT_PATIENCE_S,
        description="How long documents wait for a model that does not answer, such as `30 min`.",
    )
    minimum_age: Patience = Field(
        5.0,
        description="How long a file must not have changed before `only_new` takes it, such as "
        "`5 s`: a younger one may still be written, and is left for the next run.",
    )
    order: Order = Field(
        "depth",
        description="`depth`: a batch goes through all steps before new batches begin; "
        "`breadth`: all batches go through a step before the next step begins.",
    )
    batch_linger: Patience = Field(
        2.0,
        description="A provider batch is sent once no call has joined it for this long, such as "
        "`2 s`; at once when it is full.",
    )
    fail_when_waiting: FailWhenWaiting = Field(
        DEFAULT_FAIL_WHEN_WAITING,
        validate_default=True,
        description="A run has failed when more than this share of its documents waits, such as "
        "`50 %`; `never` to leave it. Documents that a route sends to a person do not count.",
    )
    near_duplicates: str | None = Field(
        None,
        description="An embedder of the catalog. `export` then leaves out texts that say nearly the "
        "same as a golden text in other words, and `train` counts them; without it, `export` "
        "compares characters.",
    )
    alerts: AlertSettings = Field(
        AlertSettings(),
        description="What `tierwise up` makes alerts for, and where they go to.",
    )
    canaries: CanarySettings = Field(
        CanarySettings(),
        description="Golden items that are asked again where a server reports another model.",
    )
    desk: DeskSettings = Field(
        DeskSettings(),
        description="The web application of `tierwise desk`, for reviewers and operators.",
    )
    secrets: Mapping[str, str] = Field(
        {},
        description="Prefect secret blocks for variables that are not set, by variable.",
    )

    @field_validator("readers")
    @classmethod
    def _are_functions(cls, readers: Mapping[str, str]) -> Mapping[str, str]:
        """Refuse what is no ending and no function of a module."""
        for ending, function in readers.items():
            if not re.fullmatch(r"\.[a-z0-9_-]+", ending):
                raise ValueError(
                    f"'{ending}' is not the ending of a file; write it in small letters with its "
                    "dot, such as '.edi'"
                )
            if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", function):
                raise ValueError(
                    f"'{function}' is not a function; write module:function, such as "
                    "readers.edi:read"
                )
        return readers

    @field_validator("secrets")
    @classmethod
    def _names_alone(cls, secrets: Mapping[str, str]) -> Mapping[str, str]:
        """Refuse anything but names, without repeating it: it may be a key, by mistake."""
        for variable, block in secrets.items():
            if not re.fullmatch("[A-Z][A-Z0-9_]*", variable):
                raise ValueError(
                    f"'{variable}' is not a variable's name; "
                    "write it in capitals, such as CLARIFAI_PAT"
                )
            if not re.fullmatch("[a-z0-9-]+", block):
                raise ValueError(
                    f"{variable} takes the name of a Prefect secret block (a-z, 0-9, -), "
                    "never the key"
                )
        return secrets


@dataclass(frozen=True, slots=True)
class Identities:
    """The identity of each model, or what is missing here to know it."""

    known: Mapping[str, str]
    unknown: Mapping[str, str]
    # by model: those of the embedders that select its few-shot examples
    selectors: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Project:
    """The files of one project, loaded on first use, which raises ConfigError with the line."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """Return the project around a folder. Raises Misuse.

        The default is TIERWISE_PROJECT, else the current folder.
        """
        folder = (start or Path(os.environ.get("TIERWISE_PROJECT", "."))).resolve()
        root = folder_with("routing_rules", folder)
        if root:
            return cls(root)
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
            text = path.read_text(encoding="utf-8-sig")
            table = tomllib.loads(text).get("tool", {}).get("tierwise", {})
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"cannot be read: {error}", path=path) from None
        # tomllib keeps no lines; the heading's is the closest one for a fault
        before, heading, _ = text.partition("[tool.tierwise]")
        line = before.count("\n") + 1 if heading else 1
        return YamlData(path, table, first_line=line).validate(ProjectSettings)

    @property
    def reading(self) -> ReadingSettings:
        """How the files of a source are read."""
        settings = self.settings
        return ReadingSettings(
            tables=settings.tables,
            rows_at=settings.rows_at,
            attachments=settings.attachments,
            ocr=settings.ocr,
            keep_recognized=settings.keep_recognized and settings.keep_text != "never",
            own=settings.readers,
            root=self.root,
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
        """routing_rules/rules.yaml, its names checked against the catalog, prompts and steps."""
        steps = {prompt.head.step for prompt in self.prompts}
        steps |= steps_without_model(self.root)
        return load_rules(self.root / RULES, self.catalog, steps)

    def refuse_unknown_checks(self) -> None:
        """Raise ConfigError if `escalate.on` names a check that does not exist.

        A project's own checks are known once tasks/ is imported; that is done only for a name that
        no check has so far. Where a module of tasks/ cannot be imported, nothing is refused.
        """
        if names_made().issuperset(self.rules.escalate.on):
            return
        try:
            for name in _module_names(self.root / "tasks"):
                self._import(f"tasks.{name}")
        except Exception:  # noqa: BLE001 - the flow that needs the module says what is wrong
            return
        source = read_yaml(self.root / RULES)
        for fault in unknown_checks(source, self.rules, names_made()):
            raise fault

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
        """The distribution of work: the settings, overridden by environment variables.

        Raises Misuse for a wrong variable.
        """
        return self.settings.with_variables(os.environ)

    @property
    def patience_s(self) -> float:
        """The seconds that documents wait for a model that is out.

        TIERWISE_PATIENCE says it, else the setting.

        Raises Misuse for a wrong variable.
        """
        value = os.environ.get("TIERWISE_PATIENCE")
        if not value:
            return self.settings.patience
        try:
            return patience_seconds(value)
        except ValueError as error:
            raise Misuse(f"TIERWISE_PATIENCE is '{value}': {error}") from None

    @property
    def fail_when_waiting(self) -> float:
        """The percentage of documents that may wait before a run has failed.

        TIERWISE_FAIL_WHEN_WAITING says it, else the setting. Raises Misuse for a wrong variable.
        """
        value = os.environ.get("TIERWISE_FAIL_WHEN_WAITING")
        if not value:
            return self.settings.fail_when_waiting
        try:
            return percent_waiting(value)
        except ValueError as error:
            raise Misuse(f"TIERWISE_FAIL_WHEN_WAITING is '{value}': {error}") from None

    def policy(self, env: Mapping[str, str]) -> Policy:
        """Return catalog, rules and certificates, with the models unavailable under `env`."""
        return Policy(
            catalog=self.catalog,
            rules=self.rules,
            certificates=self.certificates,
            unavailable=unavailable(self.catalog, env, self.root),
        )

    def env_with_secrets(self, env: Mapping[str, str]) -> Mapping[str, str]:
        """Return `env` as a flow run has it, to ask which models are available, not to call them.

        A variable from a Prefect secret block has a description of the block in the place of the
        key.
        """
        variables: dict[str, str] = {}
        for name, block in self.settings.secrets.items():
            variables[name] = Undisclosed(f"from the Prefect secret block {block}")
        for name, value in env.items():
            # an empty variable does not hide the secret block
            if value or name not in variables:
                variables[name] = value
        return variables

    def secret_blocks(
        self, model: Model | EmbedderEntry, env: Mapping[str, str]
    ) -> tuple[str, ...]:
        """Return the Prefect secret blocks with a model's missing variables in a flow run."""
        secrets = self.settings.secrets
        blocks: dict[str, None] = {}
        for alternatives in model.missing_variables(env):
            for name in alternatives.split("|"):
                if name in secrets:
                    blocks[secrets[name]] = None
        return tuple(blocks)

    def near_duplicate_encoder(self, env: Mapping[str, str]) -> Encoder | None:
        """Return the embedder of the setting `near_duplicates`; None without it.

        Raises Misuse for one outside the house, UnknownName, and ModelUnavailable.
        """
        name = self.settings.near_duplicates
        if name is None:
            return None
        from tierwise.gateway.embedders import open_embedder

        if not self.catalog.keeps_in_house(self.catalog.embedder(name)):
            raise Misuse(
                f"`near_duplicates` in pyproject.toml names {name}, a server outside the house, "
                "and golden texts would be sent to it; name an embedder with `weights`"
            )
        return open_embedder(self.catalog, name, env)

    def identities(self, env: Mapping[str, str]) -> Identities:
        """Return the identity of every model, with variables filled in from `env`."""
        known: dict[str, str] = {}
        unknown: dict[str, str] = {}
        selectors: dict[str, Sequence[str]] = {}
        for name, model in self.catalog.models.items():
            try:
                if model.uses_few_shot:
                    selectors[name] = embedder_identities(self.catalog, model, env)
                known[name] = self._identity(model, env)
            except (ModelUnavailable, ConfigError) as error:
                unknown[name] = error.message
        return Identities(known, unknown, selectors)

    def _identity(self, model: Model, env: Mapping[str, str]) -> str:
        """Return a model's identity. Raises ModelUnavailable or ConfigError if it is not known.

        For a learned model, that is its training data.
        """
        from tierwise.gateway.local import weights_hash

        if model.learned:
            return _trained(self.catalog, model, env, self.root).identity
        weights = None
        if model.weights:
            weights = weights_hash(model.weights, env)
            if weights is None:
                raise ModelUnavailable("its weights are not here", model=model.name)
        return self.catalog.identity(model, env, weights)

    def flow_names(self) -> list[str]:
        """Return the names of the modules in flows/."""
        return _module_names(self.root / "flows")

    def load_step(self, name: str) -> Step:
        """Return the step in `tasks/<name>.py`. Raises UnknownName, ConfigError."""
        step_names = _module_names(self.root / "tasks")
        module_name = name.replace("-", "_")
        if module_name not in step_names:
            raise UnknownName("step", name, step_names)
        task = getattr(self._import(f"tasks.{module_name}"), module_name, None)
        step = getattr(task, "spec", None)
        if not isinstance(step, Step):
            raise ConfigError(
                f"has no step named '{module_name}'", path=f"tasks/{module_name}.py"
            )
        return step

    def load_flow(self, name: str) -> Any:
        """Return the Prefect flow in `flows/<name>.py`. Raises UnknownName, ConfigError.

        Dashes in the name count as underscores.
        """
        module_name = name.replace("-", "_")
        if module_name not in self.flow_names():
            raise UnknownName("flow", name, self.flow_names())
        flow = getattr(self._import(f"flows.{module_name}"), module_name, None)
        if not hasattr(flow, "fn"):
            raise ConfigError(
                f"has no flow function named '{module_name}'",
                path=f"flows/{module_name}.py",
            )
        return flow

    def _import(self, module: str) -> ModuleType:
        """Import a module of the project, whose root comes first on Python's path."""
        if str(self.root) not in sys.path:
            sys.path.insert(0, str(self.root))
        try:
            return importlib.import_module(module)
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:  # a module may raise anything
            path = self.root / f"{module.replace('.', '/')}.py"
            raise import_fault(error, path, self.root) from error


def steps_without_model(root: Path) -> set[str]:
    """Return the steps that tasks/ and flows/ make by `function_step("NAME", …)`, not run.

    They have no prompt that names them. A file that is no Python is reported elsewhere.
    """
    names: set[str] = set()
    for folder in ("tasks", "flows"):
        for path in sorted((root / folder).glob("*.py")):
            with suppress(OSError, ValueError, SyntaxError):
                tree = ast.parse(path.read_text(encoding="utf-8-sig"))
                names.update(_own_steps_in(tree))
    return names


def _own_steps_in(tree: ast.Module) -> Iterator[str]:
    """Yield the names that calls of `function_step` and `http_step` give as a constant."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        called = function.attr if isinstance(function, ast.Attribute) else ""
        if isinstance(function, ast.Name):
            called = function.id
        if called not in _MAKERS:
            continue
        named = [each.value for each in node.keywords if each.arg == "name"]
        for name in [*node.args[:1], *named]:
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value


def import_fault(error: BaseException, path: Path, root: Path) -> ConfigError:
    """Return what hinders a module of the project to be imported, with the line at fault."""
    text = shorten(str(error), _LONGEST_TEXT, placeholder=" …")
    place: tuple[Path, int | None] = own_line(error, root, module=path)
    if isinstance(error, SyntaxError):
        # the file with the error is never executed, so it is not in the traceback
        text = error.msg
        if error.filename:
            place = (Path(error.filename), error.lineno)
    message = f"cannot be imported: {type(error).__name__}: {text}"
    return ConfigError(message, path=place[0], line=place[1])


def own_line(
    error: BaseException, root: Path, *, module: Path | None = None
) -> tuple[Path, int | None]:
    """Return the last line of the project's own code in an error's traceback.

    Where there is none, it is `module`, or else the last line of all. Paths are below the root.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(Path(frame.filename), root)]
    if own:
        return Path(own[-1].filename).relative_to(root), own[-1].lineno
    if module is not None or not frames:
        return module or root, None
    return Path(frames[-1].filename), frames[-1].lineno


def _is_own(file: Path, root: Path) -> bool:
    """Return True for the project's code, and not that of an environment inside the project."""
    if not file.is_relative_to(root) or "site-packages" in file.parts:
        return False
    return not file.is_relative_to(Path(__file__).parent)


def _module_names(folder: Path) -> list[str]:
    return sorted(
        path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")
    )


def unavailable(catalog: Catalog, env: Mapping[str, str], root: Path) -> dict[str, str]:
    """Return the models that cannot be used under these variables, with the remedy."""
    remedies: dict[str, str] = {}
    for name, model in catalog.models.items():
        remedy = (
            catalog.unavailable(model, env)
            or _missing_weights(model, env)
            or _missing_embedder(catalog, model, env)
            or _not_trained(catalog, model, env, root)
        )
        if remedy:
            remedies[name] = remedy
    return remedies


def _missing_weights(model: Model, env: Mapping[str, str]) -> str | None:
    """Return the remedy for a model run on this machine whose weights are missing or unverified."""
    from tierwise.gateway.local import weights_present

    if model.weights is None or weights_present(model.weights, env):
        return None
    own_file = model.weights.own_file(env)
    if own_file and not own_file.is_file():
        return f"there is no file {own_file}"
    if own_file:
        return f"{own_file} is not verified; run `tierwise fetch {model.name}`"
    return f"its weights are not here; run `tierwise fetch {model.name}`"


def _missing_embedder(
    catalog: Catalog, model: Model, env: Mapping[str, str]
) -> str | None:
    """Return the remedy for a model whose embedder cannot be used here."""
    for name in model.embedder:
        from tierwise.gateway.embedders import what_is_missing

        missing = what_is_missing(catalog, catalog.embedder(name), env)
        if missing:
            return f"its embedder {name}: {missing}"
    return None


def _not_trained(
    catalog: Catalog, model: Model, env: Mapping[str, str], root: Path
) -> str | None:
    """Return the remedy for a learned model that is not trained, or for something else."""
    if model.learned is None:
        return None
    from tierwise.gateway.learned.files import trained_file

    if not trained_file(root, model.name).exists():
        return f"it is not trained yet; run `tierwise train {model.learned}`"
    try:
        _trained(catalog, model, env, root)
    except (ConfigError, ModelUnavailable) as error:
        return error.message
    return None


def _trained(
    catalog: Catalog, model: Model, env: Mapping[str, str], root: Path
) -> ClassifierMetadata:
    """Return a learned model's metadata, if it was trained as the catalog has it today.

    Raises ConfigError, and ModelUnavailable where an embedder is not known here.
    """
    from tierwise.gateway.learned.files import (
        check_embedders,
        check_terms,
        read_metadata,
        trained_file,
    )

    path = trained_file(root, model.name)
    metadata = read_metadata(path)
    identities = embedder_identities(catalog, model, env)
    check_embedders(metadata, identities, path)
    check_terms(metadata, model.uses_terms, path)
    return metadata


def embedder_identities(
    catalog: Catalog, model: Model, env: Mapping[str, str]
) -> list[str]:
    """Return the identities of a model's embedders. Raises ModelUnavailable."""
    identities = []
    for name in model.embedder:
        from tierwise.gateway.embedders import embedder_identity

        entry = catalog.embedder(name)
        identities.append(embedder_identity(entry, env))
    return identities
