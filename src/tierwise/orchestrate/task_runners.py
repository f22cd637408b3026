"""Task runners: threads of the flow's process, or worker processes of Dask or Ray.

The only door to both.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prefect.task_runners import TaskRunner

from tierwise.errors import Misuse
from tierwise.orchestrate.batch_runner import BatchTaskRunner
from tierwise.project import Project, Scale

BATCHES = 8  # of a step at once in a process; the documents of each go concurrently
_DASK = {
    "DASK_LOGGING__DISTRIBUTED": "critical",  # it logs errors at every ordinary end
    # else a flow without workers waits for ever
    "DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": "300s",
}


def task_runner() -> TaskRunner[Any]:
    """Return the project's task runner, for `@flow(task_runner=task_runner())`. Starts nothing.

    It is set in `[tool.tierwise]` of pyproject.toml, or by variables: see `Scale`. Raises
    ConfigError for a wrong setting, and Misuse for a wrong variable or when the extra that it needs
    is not installed.
    """
    scale, root = _scale()
    try:
        if scale.task_runner == "dask":
            return _dask(scale)
        if scale.task_runner == "ray":
            return _ray(scale, root)
    except ImportError as error:
        kind = scale.task_runner
        raise Misuse(
            f"task_runner is {kind}, but {error.name} is missing; pip install 'tierwise[{kind}]'"
        ) from None
    return BatchTaskRunner(max_workers=BATCHES)


def _scale() -> tuple[Scale, Path]:
    """Return the scale settings and the root of the project around the current folder.

    A flow may be imported outside of a project, too.
    """
    try:
        project = Project.find()
    except Misuse:
        return Scale().with_variables(os.environ), Path.cwd()
    return project.scale, project.root


def _dask(scale: Scale) -> TaskRunner[Any]:
    # read when Dask is imported, here and in its workers
    for name, value in _DASK.items():
        os.environ.setdefault(name, value)
    from prefect_dask.task_runners import DaskTaskRunner

    # without a dashboard no port is opened to others
    own: dict[str, Any] | None = None
    if not scale.cluster:
        own = {
            "n_workers": scale.workers,
            "threads_per_worker": BATCHES,
            "dashboard_address": None,
        }
    runner: TaskRunner[Any] = DaskTaskRunner(address=scale.cluster, cluster_kwargs=own)
    return runner


def _ray(scale: Scale, root: Path) -> TaskRunner[Any]:
    import ray  # noqa: F401 - prefect_ray would not miss it before the flow starts
    from prefect_ray.task_runners import RayTaskRunner

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Prefect loads `flows/x.py` as the module `x`
    env = {
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "flows")]),
        "TIERWISE_PROJECT": str(root),
    }
    kwargs: dict[str, Any] = {"runtime_env": {"env_vars": env}}
    if not scale.cluster:
        kwargs["num_cpus"] = scale.workers
        kwargs["include_dashboard"] = False
    runner: TaskRunner[Any] = RayTaskRunner(address=scale.cluster, init_kwargs=kwargs)
    return runner
