"""A project's files, each read as far as it can be: what is wrong with one hides nothing in the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from tierwise.errors import ConfigError
from tierwise.policy.catalog import Catalog, catalog_faults
from tierwise.policy.certificates import Certificates, load_certificates
from tierwise.policy.rules import Rules, rules_faults
from tierwise.project import CATALOG, CERTIFICATES, RULES, Project
from tierwise.steps.prompts import SUFFIX, Prompts, read_prompts
from tierwise.text.yaml import YamlData, read_yaml

M = TypeVar("M", bound=BaseModel)


@dataclass
class Files:
    """What could be read, and every fault. When rules and catalog are `sound`, routes can be asked."""

    root: Path
    faults: list[ConfigError] = field(default_factory=list)
    sound: bool = True
    catalog: Catalog | None = None
    catalog_source: YamlData | None = None
    prompts: Prompts = field(default_factory=lambda: Prompts({}))
    broken_prompts: tuple[str, ...] = ()
    rules: Rules | None = None
    rules_source: YamlData | None = None
    certificates: Certificates = field(default_factory=Certificates)
    certificates_source: YamlData | None = None

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that prompts are for; a prompt that is wrong is taken to be for the step of its name."""
        return tuple(
            sorted({prompt.head.step for prompt in self.prompts} | set(self.broken_prompts))
        )


def read_files(project: Project) -> Files:
    """All files that rules stand on."""
    files = Files(project.root)
    _read_catalog(files)
    files.prompts, faults = read_prompts(project.root / "prompts")
    files.broken_prompts = tuple(
        Path(fault.path or "").name.removesuffix(SUFFIX) for fault in faults
    )
    files.faults += faults
    _read_rules(files)
    _read_certificates(files)
    try:
        project.settings  # noqa: B018 - loads pyproject.toml
    except ConfigError as fault:
        files.faults.append(fault)
    return files


def _read(files: Files, path: Path, model: type[M]) -> tuple[YamlData | None, M | None]:
    try:
        source = read_yaml(files.root / path)
    except ConfigError as fault:
        files.faults.append(fault)
        return None, None
    value, faults = source.fitted(model)
    files.faults += faults
    return source, value


def _read_catalog(files: Files) -> None:
    files.catalog_source, files.catalog = _read(files, CATALOG, Catalog)
    if files.catalog_source and files.catalog:
        faults = list(catalog_faults(files.catalog_source, files.catalog))
        files.faults += faults
        files.catalog = None if faults else files.catalog


def _read_rules(files: Files) -> None:
    """Names are looked up in the catalog as it is written, so that a fault in one entry hides no other name."""
    files.rules_source, files.rules = _read(files, RULES, Rules)
    if files.rules is None or files.rules_source is None or files.catalog_source is None:
        files.sound = False
        return
    written = files.catalog_source.data
    models, tiers = (_keys(written, name) for name in ("models", "tiers"))
    faults = list(rules_faults(files.rules_source, files.rules, models, tiers, files.steps))
    files.faults += faults
    files.sound = files.catalog is not None and not faults


def _keys(data: object, name: str) -> tuple[str, ...]:
    inner = data.get(name) if isinstance(data, dict) else None
    return tuple(inner) if isinstance(inner, dict) else ()


def _read_certificates(files: Files) -> None:
    path = files.root / CERTIFICATES
    try:
        files.certificates = load_certificates(path)
        if files.certificates.certificates:
            files.certificates_source = read_yaml(path)
    except ConfigError as fault:
        files.faults.append(fault)
