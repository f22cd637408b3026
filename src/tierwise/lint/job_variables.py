"""Job variables of deployments in the work pool of `tierwise up`: none may start a program.

The pool refuses them when a run is created; here they are found in prefect.yaml, with their lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tierwise.lint.findings import Finding, finding_at
from tierwise.text.yaml import Location, YamlData

POOL = "tierwise"  # the work pool of `tierwise up`, as prefect.yaml has it
ENV = "env"
# None of these, nor a variable in `env` with a value of the file, is a caller's way to a program.
ALLOWED = (ENV, "name", "labels", "stream_output")


def pooled_job_variables(
    source: YamlData,
) -> Iterator[tuple[Location, Mapping[str, Any]]]:
    """Yield the job variables of each deployment in this pool, with their place in the file."""
    data = source.data
    deployments = data.get("deployments") if isinstance(data, Mapping) else None
    if not isinstance(deployments, list):
        return
    for index, deployment in enumerate(deployments):
        pool = deployment.get("work_pool") if isinstance(deployment, Mapping) else None
        if not isinstance(pool, Mapping) or pool.get("name") != POOL:
            continue
        job_variables = pool.get("job_variables")
        if isinstance(job_variables, Mapping):
            yield ("deployments", index, "work_pool", "job_variables"), job_variables


def job_variable_findings(source: YamlData) -> Iterator[Finding]:
    """Yield the job variables that the pool does not take, such as `command`."""
    for place, job_variables in pooled_job_variables(source):
        for name in job_variables:
            if name in ALLOWED:
                continue
            message = (
                f"the work pool '{POOL}' of `tierwise up` takes no '{name}', which could "
                "start any program; use a pool of your own, or remove it"
            )
            yield finding_at(source, (*place, name), "error", "deployment", message)
