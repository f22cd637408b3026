"""Unknown parameters of a flow: refused before a run, with the name that was meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect.client.orchestration import get_client
from prefect.exceptions import SignatureMismatchError

from tierwise.errors import unknown_name


def say_what_was_meant() -> None:
    """Have Prefect name the parameter that a flow does not take, and the nearest one it takes.

    Prefect refuses it at the start of the run, and would list all names of both sides. Making a
    step calls this, which is before any run of a flow with steps. May be called again.
    """
    mismatch: Any = classmethod(_mismatch)
    SignatureMismatchError.from_bad_params = mismatch  # type: ignore[method-assign]


def refuse_unknown_parameters() -> None:
    """Have Prefect's server refuse unknown parameters of all deployments, in its UI and API.

    The schema that Prefect makes of a flow allows any others, so that a misspelt one would only
    fail the run. The refusal lists the names that the flow takes.
    """
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            schema = deployment.parameter_openapi_schema
            if not isinstance(schema, dict):
                continue
            names = list(schema.get("properties", {}))
            strict = {**schema, "propertyNames": {"enum": names}}
            # Only this field: the client's own call would fill in others.
            change = {"parameter_openapi_schema": strict}
            client.request("PATCH", f"/deployments/{deployment.id}", json=change)  # type: ignore[arg-type]


def _mismatch(
    kind: type[SignatureMismatchError],
    expected_params: Sequence[str],
    provided_params: Sequence[str],
) -> SignatureMismatchError:
    unknown = [name for name in provided_params if name not in expected_params]
    if not unknown:
        missing = [name for name in expected_params if name not in provided_params]
        return kind(f"parameters are missing: {', '.join(missing)}")
    sentences = [unknown_name("parameter", name, expected_params) for name in unknown]
    return kind("; ".join(sentences))
