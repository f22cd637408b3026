"""A project's files, each read as far as possible: a fault in one hides nothing in the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from tierwise.errors import ConfigError
from tierwise.policy.catalog import Catalog, catalog_faults, embedders_written_in
from tierwise.policy.certificates import Certificates, load_certificates
from tierwise.policy.rules import Rules, rules_faults
from tierwise.project import (
    CATALOG,
    CERTIFICATES,
    RULES,
    Project,
    steps_without_model,
)
from tierwise.steps.prompts import SUFFIX, Prompts, read_prompts
from tierwise.text.yaml import YamlData, read_yaml

M = TypeVar("M", bound=BaseModel)


@dataclass
class ProjectFiles:
    """The files that could be read, and every fault.

    `sound` says that rules and catalog are right, so that routes can be worked out.
    """

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
        """The steps that prompts are for, and those without a model.

        A broken prompt counts for the step of its name.
        """
        declared = {prompt.head.step for prompt in self.prompts}
        broken = set(self.broken_prompts)
        return tuple(sorted(declared | broken | steps_without_model(self.root)))


def read_files(project: Project) -> ProjectFiles:
    """Read catalog, prompts, rules, certificates and settings."""
    files = ProjectFiles(project.root)
    _read_catalog(files)
    _read_prompts(files)
    # after catalog and prompts: rules name models and steps
    _read_rules(files)
    _read_certificates(files)
    try:
        project.settings  # noqa: B018 - loads pyproject.toml
    except ConfigError as fault:
        files.faults.append(fault)
    return files


def _read_model(
    files: ProjectFiles, path: Path, model: type[M]
) -> tuple[YamlData | None, M | None]:
    """Read a YAML file; None in the place of what could not be read, with the faults noted."""
    try:
        source = read_yaml(files.root / path)
    except ConfigError as fault:
        files.faults.append(fault)
        return None, None
    value, faults = source.fitted(model)
    files.faults += faults
    return source, value


def _read_catalog(files: ProjectFiles) -> None:
    source, catalog = _read_model(files, CATALOG, Catalog)
    files.catalog_source = source
    if source is None or catalog is None:
        return
    faults = list(catalog_faults(source, catalog))
    files.faults += faults
    if not faults:
        files.catalog = catalog


def _read_prompts(files: ProjectFiles) -> None:
    files.prompts, faults = read_prompts(files.root / "prompts")
    files.faults += faults
    # the front matter cannot be trusted here, so the step is taken from the file's name
    broken: list[str] = []
    for fault in faults:
        file_name = Path(fault.path or "").name
        broken.append(file_name.removesuffix(SUFFIX))
    files.broken_prompts = tuple(broken)


def _read_rules(files: ProjectFiles) -> None:
    """Read the rules, whose names are looked up in the catalog as it is written.

    That way a fault in one entry of the catalog hides no other name.
    """
    files.rules_source, files.rules = _read_model(files, RULES, Rules)
    if (
        files.rules is None
        or files.rules_source is None
        or files.catalog_source is None
    ):
        files.sound = False
        return
    embedders = embedders_written_in(files.catalog_source.data)
    models = [
        name
        for name in _keys(files.catalog_source.data, "models")
        if name not in embedders
    ]
    tiers = _keys(files.catalog_source.data, "tiers")
    faults = list(
        rules_faults(
            files.rules_source, files.rules, models, tiers, files.steps, embedders
        )
    )
    files.faults += faults
    files.sound = files.catalog is not None and not faults


def _keys(data: object, name: str) -> tuple[str, ...]:
    """Return the keys of a mapping inside raw YAML data; none where there is no mapping."""
    if not isinstance(data, dict):
        return ()
    inner = data.get(name)
    return tuple(inner) if isinstance(inner, dict) else ()


def _read_certificates(files: ProjectFiles) -> None:
    path = files.root / CERTIFICATES
    try:
        files.certificates = load_certificates(path)
        # without certificates there may be no file, and nothing in it to point at
        if files.certificates.all or files.certificates.fields:
            files.certificates_source = read_yaml(path)
    except ConfigError as fault:
        files.faults.append(fault)
