"""Many documents through providers of which every fifth answer is a fault of some kind, beside the same without faults.

    python -m benchmarks.storm

Three stand-in providers on real sockets and one address where nobody listens. Each document has to end accepted, or
deferred with a reason; each request has to be an attempt in the ledger; no money may stay reserved.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from tests.kit import standin as faults
from tests.kit.projects import make_project, model
from tests.kit.standin import OK, Fault, Standin, late, status, unused_address
from tests.kit.steps import CLASSIFY, GOOD, LABELS
from tierwise.engine import Engine
from tierwise.project import Project
from tierwise.records import Attempt, Batch, Document, Outcome

SHARE = 0.2
RULES = "version: 1\nroutes:\n  - {{name: default, try: [{models}]}}\n"
WRONG_LABEL = Fault(text='{"evidence": "has not arrived", "label": "weather"}')
WRONG_LANGUAGE = Fault(
    text='{"evidence": "ist nicht angekommen", "label": "Lieferung"}'
)


def passing(timeout_s: float) -> dict[str, Fault]:
    """Faults that a model may get over, or that concern one document."""
    return {
        "400 too long": status(
            400,
            "This model's maximum context length is 4096 tokens. You requested 5000 tokens.",
        ),
        "408": status(408),
        "409": status(409),
        "413": status(413),
        "422": status(422),
        "429": status(429),
        "429, retry after 1 s": status(429, retry_after=1),
        "500": status(500),
        "502": status(502),
        "503": status(503),
        "529": status(529),
        "reset": faults.RESET,
        "reset in the body": faults.RESET_MID_BODY,
        "silence": late(timeout_s * 2),
        "a body that trickles for ever": faults.TRICKLE,
        "not JSON": faults.NOT_JSON,
        "JSON cut short": faults.TRUNCATED_JSON,
        "no text": faults.EMPTY,
        "refusal": faults.REFUSAL,
        "content filter": faults.CONTENT_FILTER,
        "cut off": faults.CUT_OFF,
        "wrong usage": faults.WRONG_USAGE,
        "absurd usage": Fault(usage={"prompt_tokens": 10**17}),
        "no usage": faults.NO_USAGE,
        "an error in a 200": faults.ERROR_INSIDE,
        "wrong label": WRONG_LABEL,
        "wrong language": WRONG_LANGUAGE,
    }


@dataclass(frozen=True)
class Weathered:
    """What became of the documents, and what it took."""

    outcomes: tuple[Outcome, ...]
    attempts: tuple[Attempt, ...]  # on record
    recorded: int  # outcomes on record
    requests: int  # that the stand-ins saw
    seconds: float
    reserved: Decimal  # USD, at the end
    spent: Decimal

    @property
    def accepted(self) -> int:
        return sum(outcome.status == "accepted" for outcome in self.outcomes)

    @property
    def unexplained(self) -> int:
        """Documents that are neither accepted nor deferred with a reason."""
        return sum(
            not (o.status == "accepted" or (o.status == "deferred" and o.reason))
            for o in self.outcomes
        )

    @property
    def sent(self) -> int:
        """Attempts that reached a server."""
        return sum(attempt.model != "gone" for attempt in self.attempts)


def weather(
    documents: int,
    *,
    share: float = SHARE,
    concurrency: int = 128,
    timeout_s: float = 4,
    latency_s: float = 0.05,
    models: str = "first, gone, second, third",
) -> Weathered:
    """All documents through one step, at once; `share` of the answers are faults, the same ones every time."""
    dice = random.Random(7)
    with ExitStack() as stack:
        servers = [stack.enter_context(Standin(latency_s=latency_s)) for _ in range(3)]
        for server, fatal in zip(servers, (401, 404, None), strict=True):
            server.answer(GOOD)
            server.faults(_drawn(dice, documents * 4, share, timeout_s, fatal))
        root = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "project"
        addresses = {
            "first": servers[0].url,
            "gone": unused_address(),
            "second": servers[1].url,
        }
        addresses |= {"third": servers[2].url}
        entries = (model(name, url) for name, url in addresses.items())
        settings = f"    concurrency: {concurrency}\n"
        make_project(
            root,
            *(_with(entry, timeout_s) + settings for entry in entries),
            rules=RULES.format(models=models),
        )
        engine = stack.enter_context(Engine(Project(root), env={}))
        texts = (
            f"My parcel number {n} has not arrived, the page says nothing since Monday."
            for n in range(documents)
        )
        batch = Batch(
            tuple(
                Document(id=str(n), text=t, sensitivity="internal")
                for n, t in enumerate(texts)
            )
        )
        run = engine.start_run("storm", budget_usd=Decimal(1000))
        begun = time.monotonic()
        done = engine.run_batch(run, CLASSIFY, batch, LABELS)
        seconds = time.monotonic() - begun
        [state] = engine.ledger.budgets.states()
        return Weathered(
            outcomes=tuple(document.outcomes["classify"] for document in done.load()),
            attempts=tuple(engine.ledger.runs.attempts(run.id)),
            recorded=sum(1 for _ in engine.ledger.runs.outcomes(run.id)),
            requests=sum(server.count for server in servers),
            seconds=seconds,
            reserved=state.reserved,
            spent=state.spent,
        )


def _drawn(
    dice: random.Random, number: int, share: float, timeout_s: float, fatal: int | None
) -> Iterator[Fault]:
    """Faults and good answers by chance; after a third of the documents, one that puts the model out for good."""
    kinds = list(passing(timeout_s).values())
    for n in range(number):
        if fatal and share and n == number // 12:
            yield status(fatal)
        else:
            yield dice.choice(kinds) if dice.random() < share else OK


def _with(entry: str, timeout_s: float) -> str:
    return entry.replace("timeout_s: 20", f"timeout_s: {timeout_s}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=128)
    options = parser.parse_args()
    ask: Callable[[float], Weathered] = lambda share: weather(  # noqa: E731
        options.documents, share=share, concurrency=options.concurrency
    )
    calm = ask(0)
    storm = ask(SHARE)
    print("| | without faults | every fifth answer a fault |\n|---|---|---|")
    for name, tell in {
        "documents": lambda w: len(w.outcomes),
        "accepted": lambda w: w.accepted,
        "deferred with a reason": lambda w: (
            len(w.outcomes) - w.accepted - w.unexplained
        ),
        "neither": lambda w: w.unexplained,
        "attempts on record": lambda w: len(w.attempts),
        "of them sent, and requests seen": lambda w: f"{w.sent}, {w.requests}",
        "seconds": lambda w: f"{w.seconds:.1f}",
        "USD spent, still reserved": lambda w: f"{w.spent:.4f}, {w.reserved:.4f}",
    }.items():
        print(f"| {name} | {tell(calm)} | {tell(storm)} |")
    print(
        "\nErrors of attempts:",
        dict(Counter(a.error for a in storm.attempts if a.error).most_common()),
    )
    print("Attempts by model:", dict(Counter(a.model for a in storm.attempts)))
    last = (
        o.reason.rpartition("third: ")[2]
        for o in storm.outcomes
        if o.status == "deferred"
    )
    for reason, times in Counter(
        reason.partition("; ")[0] for reason in last
    ).most_common():
        print(f"deferred {times} x, as the last model said: {reason}")


if __name__ == "__main__":
    main()
