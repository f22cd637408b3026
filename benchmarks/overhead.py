"""What tierwise costs a document, beside loops that only call: every answer checked, every row durable in the ledger.

    python -m benchmarks.overhead

All ways put the same documents, one step each, to one stand-in provider in a process of its own, in turns: a loop on
httpx, a loop on LiteLLM, the engine without Prefect, and a Prefect flow (one server for all), the latter two on both
lanes of the gateway. The loops send requests that were prepared beforehand and keep nothing. Documents are read before
the clock starts. On a machine that others use too, only the ratios can be trusted.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gateway import serving
from tests.kit.projects import make_project
from tierwise.orchestrate.environment import prefect_home, prepare_prefect

IN_FLIGHT = (1, 32, 128)
LATENCIES_MS = (0, 200)
LABELS = ["billing", "delivery", "praise"]
TEXT = (
    "The invoice of March is still open and should be paid by Friday, as my colleague has told you before. "
    * 20
)
WORKERS = 8  # batches at once, as in our flows
MODEL = """
  small:
    tier: local
    lane: {lane}
    litellm_params: {{model: hosted_vllm/small, api_base: "{url}", api_key: none}}
    context_tokens: 8000
    max_output_tokens: 500
    strength: 50
    concurrency: {in_flight}
    price: {{input: 1, output: 2, source: none, date: 2026-11-01}}
"""
RULES = "{version: 1, routes: [{name: default, try: [small]}]}"
LITELLM = "LiteLLM, bare loop"

Way = Callable[["Place", Path], float]


@dataclass(frozen=True)
class Place:
    """A project for each lane, whose one model is served at `url` and takes so many calls at once."""

    url: str
    in_flight: int
    projects: dict[str, Path]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--documents",
        type=int,
        default=1024,
        help="of each way; up to four times as many at 200 ms",
    )
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--in-flight", type=int, nargs="+", default=IN_FLIGHT)
    parser.add_argument("--latency-ms", type=int, nargs="+", default=LATENCIES_MS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = made(Path(folder), "prefect")
        prefect_home(root).mkdir(parents=True)
        prepare_prefect(root, log_level="CRITICAL")
        from prefect.testing.utilities import prefect_test_harness

        print(
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n"
        )
        print(
            "| server's latency | in flight | way | documents | documents/s | to LiteLLM's loop | to the limit |"
        )
        print("|---|---|---|---|---|---|---|")
        with prefect_test_harness(server_startup_timeout=120):
            for latency_ms, in_flight in itertools.product(
                options.latency_ms, options.in_flight
            ):
                with serving(latency_ms) as url:
                    number = documents_for(latency_ms, in_flight, options.documents)
                    place = prepared(
                        made(Path(folder), f"{latency_ms}-{in_flight}"), url, in_flight
                    )
                    report(
                        latency_ms, place, number, compare(place, number, options.turns)
                    )


def documents_for(latency_ms: int, in_flight: int, most: int) -> int:
    """As many as take about seven seconds where the latency decides, and whole rounds of those in flight."""
    number = (
        min(4 * most, 7000 * in_flight // latency_ms)
        if latency_ms
        else most // (4 if in_flight == 1 else 1)
    )
    return max(1, number // in_flight) * in_flight


def prepared(folder: Path, url: str, in_flight: int) -> Place:
    """A project for each lane."""
    projects = {}
    for lane in ("litellm", "lean"):
        entry = MODEL.format(lane=lane, url=url, in_flight=in_flight)
        projects[lane] = make_project(folder / lane, entry, rules=RULES)
    return Place(url, in_flight, projects)


def compare(place: Place, number: int, turns: int) -> dict[str, float]:
    """Seconds of each way, over all turns; after a few documents each to warm up."""
    seconds: dict[str, float] = defaultdict(float)
    for turn in range(turns + 1):
        for name, way in WAYS.items():
            taken = way(
                place,
                written(
                    place,
                    f"{turn} {name}",
                    number if turn else min(number, 2 * place.in_flight),
                ),
            )
            seconds[name] += taken if turn else 0
    return {name: taken / turns for name, taken in seconds.items()}


def report(
    latency_ms: int, place: Place, number: int, seconds: dict[str, float]
) -> None:
    """Print one row for each way."""
    for name, taken in seconds.items():
        limit = (
            f"{number / taken / (place.in_flight * 1000 / latency_ms):.2f}"
            if latency_ms
            else ""
        )
        row = f"{latency_ms} ms | {place.in_flight} | {name} | {number} | {number / taken:,.0f}"
        print(f"| {row} | {seconds[LITELLM] / taken:.2f} | {limit} |", flush=True)


def written(place: Place, turn: str, number: int) -> Path:
    """A JSON Lines file of documents that no other turn has, so that none is reused."""
    path = place.projects["lean"] / f"{turn.replace(' ', '-')}.jsonl"
    path.write_text(
        "".join(
            json.dumps({"text": f"{turn} {n}: {TEXT}"}) + "\n" for n in range(number)
        )
    )
    return path


def requests(place: Place, source: Path, lane: str) -> list[dict[str, Any]]:
    """What the lane would be told for each document: the body for `lean`, LiteLLM's arguments for `litellm`."""
    from tierwise.documents import read_documents
    from tierwise.gateway.lean_lane import build_body
    from tierwise.gateway.litellm_lane import build_request
    from tierwise.gateway.resolved_model import resolve_model
    from tierwise.project import Project
    from tierwise.records import Call

    project = Project(place.projects[lane])
    step = classify().spec
    model = project.catalog.model("small")
    target = resolve_model(model, model.resolved_params({}), ())
    build = build_body if lane == "lean" else build_request
    calls = [
        Call(
            model="small",
            identity="",
            messages=project.prompts["classify"].render(
                document, {"part": None, "labels": LABELS}
            ),
            max_tokens=60,
            response_schema=step.schema({"labels": LABELS}),
        )
        for batch in read_documents(source, sensitivity="internal")
        for document in batch.load()
    ]
    return [build(call, target) for call in calls]


def bare_httpx(place: Place, source: Path) -> float:
    import httpx

    async def loop() -> float:
        async with httpx.AsyncClient(
            limits=httpx.Limits(max_connections=None), timeout=60
        ) as client:

            async def ask(body: dict[str, Any]) -> str:
                response = await client.post(f"{place.url}/chat/completions", json=body)
                return str(response.json()["choices"][0]["message"]["content"])

            return await timed(ask, bodies, place.in_flight)

    bodies = requests(place, source, "lean")
    return asyncio.run(loop())


def bare_litellm(place: Place, source: Path) -> float:
    os.environ.setdefault(
        "LITELLM_LOCAL_MODEL_COST_MAP", "True"
    )  # else it fetches prices meanwhile
    import litellm

    async def ask(arguments: dict[str, Any]) -> str:
        return str((await litellm.acompletion(**arguments)).choices[0].message.content)

    return asyncio.run(timed(ask, requests(place, source, "litellm"), place.in_flight))


async def timed(
    ask: Callable[[dict[str, Any]], Awaitable[str]],
    bodies: list[dict[str, Any]],
    in_flight: int,
) -> float:
    """Seconds until all are answered, so many at once."""
    waiting = iter(bodies)

    async def worker() -> None:
        for body in waiting:
            assert await ask(body)

    begun = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return time.perf_counter() - begun


def classify() -> Any:
    """The step, as a task."""
    from tasks.classify import classify

    return classify


def without_prefect(lane: str) -> Way:
    """Batches through the engine, from as many threads as a flow has."""

    def way(place: Place, source: Path) -> float:
        from tierwise.orchestrate.documents import read_documents
        from tierwise.orchestrate.runs import recorded_run

        with (
            chdir(place.projects[lane]),
            recorded_run() as run,
            ThreadPoolExecutor(WORKERS) as pool,
        ):
            batches = read_documents(source, sensitivity="internal")
            begun = time.perf_counter()
            list(pool.map(lambda batch: engine_run(run, batch), batches))
            return time.perf_counter() - begun

    def engine_run(run: Any, batch: Any) -> None:
        accepted_all(
            run.hold(
                run.engine.run_batch(
                    run.context, classify().spec, batch, {"labels": LABELS}
                )
            )
        )

    return way


def as_flow(lane: str) -> Way:
    """The same as a Prefect flow: a task run a batch."""

    def way(place: Place, source: Path) -> float:
        with chdir(place.projects[lane]):
            return float(flow()(source))

    return way


def flow() -> Any:
    from prefect import flow
    from prefect.task_runners import ThreadPoolTaskRunner

    from tierwise import read_documents, recorded_run

    @flow(name="overhead", task_runner=ThreadPoolTaskRunner(max_workers=WORKERS))
    def overhead(source: Path) -> float:
        with recorded_run():
            batches = read_documents(source, sensitivity="internal")
            begun = time.perf_counter()
            for done in classify().map(batches, labels=LABELS):
                accepted_all(done.result())
            return time.perf_counter() - begun

    return overhead


def accepted_all(batch: Any) -> None:
    assert all(
        document.outcomes["classify"].status == "accepted" for document in batch.load()
    )


WAYS: dict[str, Way] = {
    "httpx, bare loop": bare_httpx,
    LITELLM: bare_litellm,
    "LiteLLM lane, without Prefect": without_prefect("litellm"),
    "LiteLLM lane, flow": as_flow("litellm"),
    "lean lane, without Prefect": without_prefect("lean"),
    "lean lane, flow": as_flow("lean"),
}


def made(folder: Path, name: str) -> Path:
    """A folder below."""
    (folder / name).mkdir()
    return folder / name


if __name__ == "__main__":
    main()
