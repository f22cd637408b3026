"""Keys from Prefect's secret blocks: into the variables of an engine, and nowhere else.

Prefect would put a block into a deployment in the open, wherever a template names it. So a project names the blocks
itself, in `[tool.tierwise.secrets]`, and they are read when an engine is made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from tierwise.errors import Misuse
from tierwise.project import Project

_TYPE = "secret"


def variables(project: Project) -> Mapping[str, str]:
    """The variables of this process, with what a project's secret blocks give for those that are not set.

    Raises Misuse, with the remedy, when a block is not there or has no text, or no server answers.
    """
    missing = {
        name: block for name, block in project.settings.secrets.items() if not os.environ.get(name)
    }
    if not missing:
        return os.environ
    try:
        with get_client(sync_client=True) as client:
            return {
                **os.environ,
                **{name: _value(client, name, block) for name, block in missing.items()},
            }
    except httpx.HTTPStatusError as error:
        told = f"Prefect's server answered {error.response.status_code}"
    except (httpx.HTTPError, RuntimeError):  # RuntimeError: a temporary server that did not start
        told = "no Prefect server answers"
    names = ", ".join(missing)
    raise Misuse(
        f"[tool.tierwise.secrets]: {told}, so there is no {names}; `tierwise up` starts one, or set {names}"
    )


def _value(client: SyncPrefectClient, variable: str, block: str) -> str:
    try:
        value = client.read_block_document_by_name(block, _TYPE, include_secrets=True).data.get(
            "value"
        )
    except ObjectNotFound:
        how = "`prefect block create secret` gives the page to make it on"
        why = f"{client.api_url} has no Prefect secret block '{block}' for {variable}; {how}, or set {variable}"
        raise Misuse(f"[tool.tierwise.secrets]: {why}") from None
    if not isinstance(value, str) or not value:
        raise Misuse(
            f"[tool.tierwise.secrets]: the Prefect secret block '{block}' for {variable} holds no text"
        )
    return value
