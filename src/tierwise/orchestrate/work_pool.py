"""The work pool of `tierwise up`: a run in it may set nothing that starts another program.

A pool of Prefect's default form takes a command, a folder and variables from the run, that is from
a caller of the API. Ours takes variables alone, and only those of prefect.yaml with its values.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

from tierwise.errors import ConfigError
from tierwise.lint.job_variables import (
    ENV,
    POOL,
    job_variable_findings,
    pooled_job_variables,
)
from tierwise.text.yaml import read_yaml

_TYPE = "process"
_HARMLESS = {
    "name": {"type": ["string", "null"], "title": "Name", "default": None},
    "labels": {
        "type": "object",
        "title": "Labels",
        "additionalProperties": {"type": "string"},
    },
    "stream_output": {"type": "boolean", "title": "Stream output", "default": True},
}


def restrict_work_pool(root: Path) -> list[str]:
    """Create the work pool, or replace its template; return what a run can no longer set.

    Raises ConfigError where a deployment in prefect.yaml sets what the pool does not take.
    """
    wanted = _variables_of_deployments(root)
    with get_client(sync_client=True) as client:
        try:
            pool = client.read_work_pool(POOL)
        except ObjectNotFound:
            template = pool_template({}, wanted)
            client.create_work_pool(
                WorkPoolCreate(name=POOL, type=_TYPE, base_job_template=template)
            )
            return []
        # A pool of another kind, such as Docker's, is the project's own.
        if pool.type != _TYPE:
            return []
        present = pool.base_job_template
        template = pool_template(_defaults(present), wanted)
        if present == template:
            return []
        client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=template))
        return sorted(_names(present) - _names(template))


def pool_template(
    defaults: Mapping[str, Any], wanted: Mapping[str, list[Any]]
) -> dict[str, Any]:
    """Return the template of a pool, with its own variables and those that runs may set.

    `defaults` are the pool's; `wanted` has the values for each variable of prefect.yaml.
    """
    properties: dict[str, Any] = dict(_HARMLESS)
    schemas: dict[str, Any] = {}
    for name in sorted({*defaults, *wanted}):
        values = list(wanted.get(name, []))
        if name in defaults and defaults[name] not in values:
            values.append(defaults[name])
        schemas[name] = {"enum": values}
        # Prefect fills such a value in when it deploys, so it is not known here.
        if any("{{" in str(value) for value in wanted.get(name, [])):
            schemas[name] = {"type": ["string", "null"]}
    if schemas:
        properties[ENV] = {
            "type": "object",
            "title": "Environment variables",
            "description": "Only variables of prefect.yaml, with its values.",
            "properties": schemas,
            "additionalProperties": False,
        }
        if defaults:
            properties[ENV]["default"] = dict(defaults)
    return {
        "job_configuration": {name: f"{{{{ {name} }}}}" for name in properties},
        "variables": {
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
        },
    }


def _variables_of_deployments(root: Path) -> dict[str, list[Any]]:
    """Return the values of each variable that deployments in this pool set. Raises ConfigError."""
    path = root / "prefect.yaml"
    if not path.exists():
        return {}
    source = read_yaml(path)
    for finding in job_variable_findings(source):
        raise ConfigError(finding.message, path=finding.path, line=finding.line)
    values: dict[str, list[Any]] = {}
    for _, job_variables in pooled_job_variables(source):
        variables = job_variables.get(ENV)
        if not isinstance(variables, dict):
            continue
        for name, value in variables.items():
            known = values.setdefault(str(name), [])
            if value not in known:
                known.append(value)
    return values


def _defaults(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables that a pool gives to every run."""
    configured = template.get("job_configuration", {}).get(ENV)
    default = template.get("variables", {}).get("properties", {}).get(ENV, {})
    defaults = dict(configured) if isinstance(configured, dict) else {}
    if isinstance(default.get("default"), dict):
        defaults.update(default["default"])
    return defaults


def _names(template: Mapping[str, Any]) -> set[str]:
    """Return what a run can set in a pool."""
    return set(template.get("variables", {}).get("properties", {}))
