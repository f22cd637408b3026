"""Keys from Prefect's secret blocks: into the variables of an engine, and nowhere else.

Prefect would put a block into a deployment in plain text, wherever a template names it. So a
project names the blocks itself, in `[tool.tierwise.secrets]`, and they are read when an engine is
made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from tierwise.errors import Misuse
from tierwise.orchestrate.api_password import protect_temporary_server
from tierwise.project import Project

_TYPE = "secret"


def variables(project: Project) -> Mapping[str, str]:
    """Return the variables of this process; unset ones come from the project's secret blocks.

    Raises Misuse, with the remedy, when a block is not there or has no text, or no server answers.
    """
    blocks = project.settings.secrets
    missing = {
        name: block for name, block in blocks.items() if not os.environ.get(name)
    }
    if not missing:
        return os.environ
    # Prefect may start a server for the question.
    protect_temporary_server(project.root)
    try:
        with get_client(sync_client=True) as client:
            values = {
                name: _value(client, name, block) for name, block in missing.items()
            }
            return {**os.environ, **values}
    except httpx.HTTPStatusError as error:
        problem = f"Prefect's server answered {error.response.status_code}"
    except (httpx.HTTPError, RuntimeError):
        # RuntimeError: a temporary server that did not start
        problem = "no Prefect server answers"
    names = ", ".join(missing)
    raise Misuse(
        f"[tool.tierwise.secrets]: {problem}, so there is no {names}; "
        f"`tierwise up` starts one, or set {names}"
    )


def _value(client: SyncPrefectClient, variable: str, block: str) -> str:
    """Return the text of a secret block. Raises Misuse."""
    try:
        document = client.read_block_document_by_name(
            block, _TYPE, include_secrets=True
        )
    except ObjectNotFound:
        raise Misuse(
            f"[tool.tierwise.secrets]: {client.api_url} has no Prefect secret block '{block}' "
            f"for {variable}; `prefect block create secret` gives the page to make it on, "
            f"or set {variable}"
        ) from None
    value = document.data.get("value")
    if not isinstance(value, str) or not value:
        raise Misuse(
            f"[tool.tierwise.secrets]: the Prefect secret block '{block}' for {variable} "
            "holds no text"
        )
    return value
