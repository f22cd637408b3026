"""The test bed's own provider: what it bills, and when its faults begin and end."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from tests.oncall.bed import Supplier, supplier
from tests.oncall.provider import name_reply
from tests.oncall.table import UNDISTURBED, Row, table

KEY = "right-key"


def ask(provider: Supplier, text: str, *, key: str = KEY, seconds: float = 30) -> int:
    body = {"model": "cheap", "messages": [{"role": "user", "content": text}]}
    reply = httpx.post(
        f"{provider.url}/v1/chat/completions",
        json=body,
        headers={"Authorization": f"Bearer {key}"},
        timeout=seconds,
    )
    return reply.status_code


def test_the_invoice_has_every_request_and_bills_the_answered_ones(
    tmp_path: Path,
) -> None:
    """Also one whose client has gone; a fault begins after its number of answers."""
    with supplier(tmp_path, latency_s=0.3, key=KEY) as provider:
        provider.order(fault="status", status=429, retry_after=60, after=2, calls=1)
        assert ask(provider, "first", key="wrong-key") == 401
        assert ask(provider, "first") == 200
        with pytest.raises(httpx.ReadTimeout):
            ask(provider, "second", seconds=0.05)
        time.sleep(0.5)
        assert ask(provider, "third") == 429
        assert ask(provider, "third") == 200
        invoice = provider.invoice()
    statuses = [line.status for line in invoice]
    assert statuses == [401, 200, 200, 429, 200]
    billed = [line.document for line in invoice if line.is_billed]
    assert billed == ["first", "second", "third"]
    assert len({line.question for line in invoice if line.is_billed}) == 3


def test_a_provider_that_hangs_bills_nothing(tmp_path: Path) -> None:
    with supplier(tmp_path, latency_s=0) as provider:
        provider.order(fault="hang", seconds=60)
        with pytest.raises(httpx.ReadTimeout):
            ask(provider, "first", seconds=0.2)
        assert (provider.arrived(), provider.billed()) == (1, 0)


def test_every_name_is_this_machine_and_has_no_address_of_another_kind() -> None:
    name = b"\x08provider\x04test\0"
    head = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
    of_version_4 = name_reply(head + name + b"\x00\x01\x00\x01")
    assert of_version_4[:2] == b"\x12\x34"
    assert of_version_4.endswith(b"\x00\x04\x7f\x00\x00\x01")
    of_version_6 = name_reply(head + name + b"\x00\x1c\x00\x01")
    assert of_version_6[6:8] == b"\x00\x00"


def test_a_case_stands_beside_the_undisturbed_one() -> None:
    calm = Row(UNDISTURBED, 400, 400, 800, 0, 0, 0.1, 30)
    other = Row("500s", 400, 399, 806, 6, 2, 0.12, 150)
    last = table([calm, other]).splitlines()[-1]
    assert "| 399 of 400 | 806 | 6 | 2 | 0.1200 | 150 | +120 s, +20% cost |" in last
