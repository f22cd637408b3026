"""Links from the desk to Prefect's UI."""

from __future__ import annotations

from urllib.parse import quote


def flow_run_url(ui: str | None, flow_run_id: str | None) -> str | None:
    """Return the page of a flow run in Prefect's UI; None without either."""
    if ui is None or flow_run_id is None:
        return None
    return f"{ui.rstrip('/')}/runs/flow-run/{quote(flow_run_id, safe='')}"
