"""Alerts in Prefect: blocks with the addresses, and one automation for each alert.

Only automations and blocks with our prefix are changed or deleted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.actions import ActionTypes, CallWebhook, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger
from prefect.events.utilities import emit_event
from prefect.events.worker import EventsWorker
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr, ValidationError

from tierwise.errors import Misuse
from tierwise.lint.job_variables import POOL
from tierwise.orchestrate.alerts import PREFIX, TAG, WATCHED, Alert, alerts_of
from tierwise.policy.alerts import AlertSettings, Channel

_BLOCKS: dict[Channel, tuple[str, str]] = {
    "webhook": ("webhook", "tierwise-alert-webhook"),
    "slack": ("slack-webhook", "tierwise-alert-slack"),
    # The server knows no block for a mail server; this one takes any address of Apprise's.
    "email": ("slack-webhook", "tierwise-alert-email"),
}
_SCHEMES: dict[Channel, tuple[str, ...]] = {
    "webhook": ("https://", "http://"),
    "slack": ("https://hooks.slack.com/", "https://hooks.slack-gov.com/"),
    "email": ("mailtos://", "mailto://"),
}
_SENT_WITHIN_S = 30.0  # events, to the server
_MARK = "made by `tierwise up` from [tool.tierwise.alerts] "


def refuse_missing_addresses(settings: AlertSettings, env: Mapping[str, str]) -> None:
    """Raise Misuse where a variable that the settings name is not set or is no address."""
    for channel, variable in settings.variables.items():
        address = env.get(variable)
        if not address:
            raise Misuse(
                f"{variable} is not set, to which [tool.tierwise.alerts] sends alerts "
                f"({channel}); set it, or remove the line"
            )
        _block(channel, variable, address)


def make_alerts(
    settings: AlertSettings, env: Mapping[str, str], url: str, flows: list[str]
) -> str:
    """Make the server's alerts agree with the settings; return a line that says which there are.

    `flows` are names of flows that may not have run yet: their first failure counts, too.
    """
    with get_client(sync_client=True) as client:
        wanted = alerts_of(settings, url, _pool_id(client))
        before = _ours(client)
        if not wanted and not before:
            return "alerts: off; [tool.tierwise.alerts] in pyproject.toml turns them on"
        blocks: dict[Channel, Any] = {}
        if wanted:
            for channel, variable in settings.variables.items():
                block = _block(channel, variable, env[variable])
                blocks[channel] = block.save(_BLOCKS[channel][1], overwrite=True)
        ids: dict[str, Any] = {}
        is_new = False
        for alert in wanted:
            automation = _automation(alert, blocks, ids)
            present = before.pop(alert.name, None)
            if present is not None and present.description == automation.description:
                ids[alert.name] = present.id
                continue
            if present is not None:
                client.delete_automation(present.id)
            ids[alert.name] = client.create_automation(automation)
            is_new = True
        for old in before.values():
            client.delete_automation(old.id)
        for channel, (kind, name) in _BLOCKS.items():
            if channel not in blocks:
                _delete_block(client, kind, name)
        if not wanted:
            return "alerts: off, and those of before are deleted"
        if is_new and "failed" in settings.on:
            known = {flow.name for flow in client.read_flows()}
            _watch(known | set(flows))
    where = ", ".join(f"{c} (${name})" for c, name in settings.variables.items())
    return f"alerts: to {where}, on {', '.join(settings.on)}"


def _watch(flows: set[str]) -> None:
    """Have the next failure of these flows reported, as if their last run had been good."""
    for flow in sorted(flows):
        emit_event(
            WATCHED,
            {"prefect.resource.id": f"tierwise.flow.{flow}"},
            related=[
                {
                    "prefect.resource.id": f"tierwise.flow-name.{flow}",
                    "prefect.resource.role": "flow",
                    "prefect.resource.name": flow,
                }
            ],
        )
    # Not `wait_until_empty`, which waits for ever once the worker has lost its connection.
    EventsWorker.drain_all(timeout=_SENT_WITHIN_S, at_exit=False)


def _pool_id(client: SyncPrefectClient) -> str | None:
    try:
        return str(client.read_work_pool(POOL).id)
    except ObjectNotFound:
        return None


def _ours(client: SyncPrefectClient) -> dict[str, Automation]:
    """Return our automations by name."""
    found: dict[str, Automation] = {}
    offset = 0
    while page := client.read_automations(limit=200, offset=offset):
        for automation in page:
            if automation.name.startswith(PREFIX):
                found[automation.name] = automation
        offset += len(page)
    return found


def _automation(
    alert: Alert, blocks: Mapping[Channel, Any], ids: Mapping[str, Any]
) -> AutomationCore:
    trigger = dict(alert.trigger)
    if alert.after is not None:
        resources = [*trigger["match"]["prefect.resource.id"]]
        resources.append(f"prefect.automation.{ids[alert.after]}")
        trigger["match"] = {"prefect.resource.id": resources}
    actions: list[ActionTypes] = []
    for channel, block_id in blocks.items():
        actions.append(_action(alert, channel, block_id))
    parts = [trigger, [action.model_dump(mode="json") for action in actions]]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return AutomationCore(
        name=alert.name,
        description=f"{_MARK}({digest[:12]})",
        tags=[TAG],
        trigger=EventTrigger(**trigger),
        actions=actions,
    )


def _action(alert: Alert, channel: Channel, block_id: Any) -> ActionTypes:
    if channel == "webhook":
        payload = (
            f'{{"alert": "{alert.kind}", "over": {json.dumps(alert.is_over)}, '
            f'"text": {_as_json(alert.text)}, "link": {_as_json(alert.link)}}}'
        )
        return CallWebhook(block_document_id=block_id, payload=payload)
    return SendNotification(
        block_document_id=block_id,
        subject="tierwise",
        body=f"{alert.text}\n{alert.link}",
    )


def _as_json(template: str) -> str:
    """Return a template of the text that another template makes, as a JSON string."""
    return f"{{% filter tojson %}}{template}{{% endfilter %}}"


def _block(channel: Channel, variable: str, address: str) -> Block:
    """Return the block of a channel. Raises Misuse for an unusable address, without its text."""
    problem = Misuse(
        f"{variable} has no usable address for alerts ({channel}); "
        f"it begins with {' or '.join(_SCHEMES[channel])}"
    )
    if not address.startswith(_SCHEMES[channel]):
        raise problem
    secret = SecretStr(address)
    try:
        if channel == "webhook":
            headers: Any = {"content-type": "application/json"}
            return Webhook(url=secret, headers=headers)
        block = SlackWebhook(url=secret)
    except (ValidationError, ValueError):
        raise problem from None
    # Apprise leaves out an address that it cannot use, and says so in its own log alone.
    if not block._apprise_client.servers:
        raise problem
    return block


def _delete_block(client: SyncPrefectClient, kind: str, name: str) -> None:
    try:
        document = client.read_block_document_by_name(name, kind, include_secrets=False)
    except ObjectNotFound:
        return
    client.delete_block_document(document.id)
