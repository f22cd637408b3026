"""What a server of one's own costs: arithmetic that is known beforehand, and a real socket that is loaded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.projects import make_project, model
from tests.kit.standin import NO_USAGE, OK, Standin, status
from tests.kit.terminal import Terminal
from tierwise.errors import Misuse
from tierwise.gateway import Gateway
from tierwise.gateway.calibrate import (
    LoadLevel,
    calibrate,
    knee_of,
    load,
    reading_only,
    token_prices,
)
from tierwise.policy.catalog import Catalog
from tierwise.project import CATALOG, Project
from tierwise.records import Call, Message


def level(
    concurrency: int,
    replies: int,
    *,
    prompt: int = 0,
    completion: int = 0,
    seconds: float = 10,
    uncounted: int = 0,
) -> LoadLevel:
    return LoadLevel(
        concurrency=concurrency,
        replies=replies,
        failed=0,
        seconds=seconds,
        prompt_tokens=prompt,
        completion_tokens=completion,
        latency_p50_s=1,
        latency_p95_s=2,
        uncounted=uncounted,
    )


def test_the_knee_is_the_least_concurrency_that_gets_nearly_as_much_done() -> None:
    assert (
        knee_of(
            [level(1, 10), level(2, 19), level(4, 30), level(8, 32), level(16, 31)]
        ).concurrency
        == 4
    )


@given(
    reads=st.floats(1e-6, 1e-3),
    writes=st.floats(1e-6, 1e-2),
    hour=st.decimals("0.1", "20", places=2),
)
def test_prices_are_those_that_explain_both_loads(
    reads: float, writes: float, hour: Decimal
) -> None:
    """A server that takes so long for a token read and so long for one written gets these prices back."""
    mixed = level(
        8, 100, prompt=70_000, completion=4_000, seconds=70_000 * reads + 4_000 * writes
    )
    reading = level(
        8, 100, prompt=70_000, completion=100, seconds=70_000 * reads + 100 * writes
    )
    found = token_prices(mixed, reading, hour)
    wanted = [s * float(hour) / 3600 * 1e6 for s in (reads, writes)]
    assert [float(price) for price in found] == pytest.approx(
        wanted, rel=1e-3, abs=1e-5
    )


@given(st.floats(0.1, 100), st.floats(0.1, 100))
def test_a_price_is_never_negative(mixed: float, reading: float) -> None:
    """Not even where noise makes the shorter answers take longer."""
    both = [
        level(1, 50, prompt=9_000, completion=c, seconds=s)
        for c, s in ((900, mixed), (50, reading))
    ]
    assert min(token_prices(both[0], both[1], Decimal(2))) >= 0


@pytest.mark.parametrize("uncounted", range(11))
def test_replies_without_usage_make_no_server_dearer(uncounted: int) -> None:
    """They took their time, so they are taken to be as long as the others."""
    told = 100 - uncounted
    mixed, reading = (
        level(
            8,
            100,
            prompt=700 * told,
            completion=each * told,
            seconds=each,
            uncounted=uncounted,
        )
        for each in (40, 10)
    )
    whole, first = (
        level(8, 100, prompt=70_000, completion=each * 100, seconds=each)
        for each in (40, 10)
    )
    assert token_prices(mixed, reading, Decimal(2)) == token_prices(
        whole, first, Decimal(2)
    )


def test_where_many_replies_lack_usage_the_rest_is_not_gone_by() -> None:
    with pytest.raises(Misuse, match="left usage out of 11 of 100 replies"):
        token_prices(
            level(8, 100, prompt=1, completion=1),
            level(8, 100, prompt=1, uncounted=11),
            Decimal(2),
        )


def test_nothing_answered_is_no_price() -> None:
    with pytest.raises(Misuse, match="no call was answered"):
        knee_of([level(1, 0)])


def calls() -> Iterator[Call]:
    number = 0
    while True:
        number += 1
        yield Call(
            model="own",
            identity="i",
            messages=(Message("user", f"{number} hello"),),
            max_tokens=50,
        )


def catalog_of(server: Standin) -> Catalog:
    entry = {
        "tier": "local",
        "litellm_params": {"model": "openai/own", "api_base": f"{server.url}/v1"},
    }
    rest = {
        "context_tokens": 1000,
        "max_output_tokens": 100,
        "strength": 1,
        "price": "unknown",
    }
    tiers = {"local": {"description": "here", "stays_in_house": True}}
    return Catalog.model_validate(
        {"version": 1, "tiers": tiers, "models": {"own": {**entry, **rest}}}
    )


def test_replies_without_usage_are_counted() -> None:
    """By a server that leaves it out of every third reply."""
    with Standin() as server:
        server.faults([OK, OK, NO_USAGE] * 10_000)

        async def run() -> LoadLevel:
            gateway = Gateway(catalog_of(server), {})
            try:
                return await load(gateway, calls(), 1, 0.2)
            finally:
                await gateway.aclose()

        found = asyncio.run(run())
    assert found.uncounted == found.replies // 3 > 0
    assert found.prompt_tokens_each == found.prompt_tokens / (
        found.replies - found.uncounted
    )


def test_a_server_is_loaded_until_more_at_once_is_no_more_in_all() -> None:
    """The stand-in answers each request after 50 ms, so that twice the concurrency is twice the throughput."""
    with Standin(latency_s=0.05) as server:

        async def run() -> list[LoadLevel]:
            gateway = Gateway(catalog_of(server), {})
            heard: list[LoadLevel] = []
            try:
                await calibrate(
                    gateway,
                    calls(),
                    hour_usd=Decimal(1),
                    seconds=0.4,
                    levels=(1, 4),
                    on_level=heard.append,
                )
            finally:
                await gateway.aclose()
            return heard

        one, four, reading = asyncio.run(run())
        assert four.replies > one.replies
        assert reading.concurrency == 4
        prompts = [request.prompt for request in server.requests]
        assert len(set(prompts)) == len(prompts)  # no server answers from memory
        assert {request.body["max_tokens"] for request in server.requests[-4:]} == {1}


def test_reading_alone_asks_for_one_token_and_no_schema() -> None:
    only = next(reading_only(calls()))
    assert (only.max_tokens, only.response_schema) == (1, None)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A project with a server of its own, and two documents."""
    with Standin() as server:
        root = make_project(
            tmp_path / "project",
            model("small", server.url, price="unknown  # nobody knows"),
            model("large", server.url, tier="proprietary"),
        )
        (root / "mine").mkdir()
        for name in ("a", "b"):
            (root / "mine" / f"{name}.txt").write_text(
                f"The parcel {name} has not arrived."
            )
        (root / "golden").mkdir()
        (root / "golden" / "classify.yaml").write_text(
            "parameters: {labels: [billing, delivery], descriptions: {}}\n"
        )
        yield root


ARGUMENTS = (
    "--gpu-hour-usd",
    "2.49",
    "--documents",
    "mine",
    "--seconds",
    "1",
    "--most",
    "2",
)


def test_the_price_goes_into_the_catalog_and_nothing_else_changes(
    terminal: Terminal, project: Path
) -> None:
    before = (project / CATALOG).read_text().splitlines()
    done = terminal("calibrate", "small", *ARGUMENTS, cwd=project)
    assert done.code == 0, done.err
    after = (project / CATALOG).read_text().splitlines()
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 1
    price = Project(project).catalog.models["small"].price
    assert price != "unknown"
    assert price.input + price.output > 0
    assert price.source.startswith("2.49 USD an hour at ")
    assert "Knee: " in done.out


def test_a_dry_run_leaves_the_catalog_as_it_is(
    terminal: Terminal, project: Path
) -> None:
    before = (project / CATALOG).read_text()
    done = terminal(
        "calibrate", "small", *ARGUMENTS, "--dry-run", "--json", cwd=project
    )
    assert json.loads(done.out)["price"]["output"] >= 0
    assert (project / CATALOG).read_text() == before


def test_a_vendors_model_has_its_own_price(terminal: Terminal, project: Path) -> None:
    done = terminal("calibrate", "large", *ARGUMENTS, cwd=project)
    assert (done.code, "not served by a machine of yours" in done.err) == (2, True)


def test_guards_hold_for_a_server_of_ones_own_too(
    terminal: Terminal, project: Path
) -> None:
    """What may only go to one tier is not sent to another one, although that stays in the house as well."""
    path = project / CATALOG
    tiers = "  local: {description: here, stays_in_house: true}\n"
    text = path.read_text().replace(
        tiers, f"{tiers}  lab: {{description: shared, stays_in_house: true}}\n"
    )
    with Standin() as server:
        path.write_text(text + model("lab", server.url, tier="lab"))
        done = terminal("calibrate", "lab", *ARGUMENTS, cwd=project)
        assert (done.code, server.count) == (2, 0)
        assert "lab may not see a.txt: guard confidential-stays-local" in done.err
        (project / "mine" / "b.txt").write_text(
            "---\nsensitivity: confidential\n---\nThe parcel has not arrived."
        )
        more = terminal(
            "calibrate", "lab", *ARGUMENTS, "--sensitivity", "internal", cwd=project
        )
        assert (more.code, server.count) == (2, 0)
        assert "lab may not see b.txt" in more.err
        (project / "mine" / "b.txt").unlink()
        assert (
            terminal(
                "calibrate", "lab", *ARGUMENTS, "--sensitivity", "internal", cwd=project
            ).code
            == 0
        )
    misspelt = terminal(
        "calibrate", "lab", *ARGUMENTS, "--sensitivity", "intern", cwd=project
    )
    assert (misspelt.code, "did you mean 'internal'?" in misspelt.err) == (2, True)


@pytest.mark.parametrize(
    ("fault", "says"),
    [(status(500), "the first call failed"), (NO_USAGE, "reports no usage")],
)
def test_a_server_that_tells_nothing_gets_no_price(
    terminal: Terminal, project: Path, fault: object, says: str
) -> None:
    with Standin() as server:
        server.faults([fault] * 10_000)
        text = (project / CATALOG).read_text()
        url = next(
            line.split('"')[1] for line in text.splitlines() if "api_base" in line
        )
        (project / CATALOG).write_text(text.replace(url, f"{server.url}/v1"))
        done = terminal("calibrate", "small", *ARGUMENTS, cwd=project)
    assert done.code == 2
    assert says in done.err
