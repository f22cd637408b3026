"""`tierwise reprice`: unknown costs filled in later, each change a record of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from tests.kit.ledgers import migrated_url
from tests.kit.projects import PRICE, RULES, make_project, model
from tests.kit.standin import RESET, Fault, Standin
from tests.kit.steps import CLASSIFY, GOOD, LABELS, TEXT
from tests.kit.terminal import Done, Terminal
from tierwise.engine import Engine
from tierwise.ledger import Ledger
from tierwise.ledger.people.repricing import CallScope, NewCost, Origin
from tierwise.project import Project
from tierwise.records import Batch, Document

COUNTS = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
PRICED = Decimal("0.00014")  # 100 at 1, 20 at 2 USD per million
GIVEN = Decimal("0.00007")  # at half of that
Say = Callable[..., Done]


@pytest.fixture
def project(
    tmp_path: Path, standin: Standin, database: str, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A project with a run of four calls without a price: three answered, one lost on the way."""
    monkeypatch.setenv("TIERWISE_LEDGER_URL", migrated_url(database, tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    rules = RULES.replace("[small, large]", "[small]")
    rules += "budget: {allow_unpriced: [small], limits: [{usd: 5, per: month}]}\n"
    entry = model("small", standin.url, tier="proprietary", price="unknown")
    root = make_project(
        tmp_path / "p",
        entry.replace("timeout_s: 20", "timeout_s: 20\n    lane: lean"),
        rules=rules,
    )
    standin.answer(GOOD)
    standin.faults([RESET, *[Fault(usage=COUNTS)] * 3])
    with Engine(Project(root), env={}) as engine:
        run = engine.start_run("inbox", budget_usd=Decimal(1))
        documents = tuple(
            Document(id=f"{n}", text=f"{TEXT} {n}", sensitivity="internal")
            for n in range(3)
        )
        engine.run_batch(run, CLASSIFY, Batch(documents), LABELS).load()
        engine.finish_run(run, "completed")
    return root


@pytest.fixture
def say(project: Path, terminal: Terminal) -> Say:
    def command(*words: object, code: int = 0) -> Done:
        done = terminal(*words, cwd=project)
        assert done.code == code, done.err + done.out
        return done

    return command


def set_price(project: Path, price: str) -> None:
    catalog = project / "routing_rules" / "catalog.yaml"
    catalog.write_text(catalog.read_text().replace("price: unknown", f"price: {price}"))


def spent(say: Say) -> set[Decimal]:
    states = json.loads(say("budgets", "--json").out)
    return {Decimal(state["spent"]) for state in states}


def figures(say: Say) -> tuple[Decimal, int, int]:
    run = json.loads(say("show", "--json").out)["run"]
    return Decimal(run["cost_known"]), run["cost_unknown"], run["repriced"]


def test_an_unknown_price_is_filled_in_once_and_on_record(
    project: Path, say: Say
) -> None:
    assert figures(say) == (0, 4, 0)
    assert "no price in the catalog" in say("reprice").out
    assert "Nothing to change" in say("reprice", "--apply").out

    set_price(project, PRICE)
    shown = say("reprice", "--model", "small")
    assert "3 calls would change. Record it with --apply." in shown.out
    assert "1 call without known tokens" in shown.out
    assert figures(say) == (0, 4, 0)
    assert spent(say) == {0}

    done = say(
        "reprice", "--model", "small", "--apply", "--note", "price list", "--by", "ann"
    )
    assert "3 calls repriced, on record." in done.out
    assert figures(say) == (3 * PRICED, 1, 3)
    assert spent(say) == {3 * PRICED}
    assert "0.000420 USD + 1 of unknown cost (3 calls repriced)" in say("show").out
    assert "repriced" in say("explain", "0").out
    say("report", "--out", "page.html")
    assert "3 calls repriced" in (project / "page.html").read_text()
    # Run twice, nothing is left to do.
    assert "Nothing to change" in say("reprice", "--apply").out
    assert figures(say) == (3 * PRICED, 1, 3)
    # The trail has who, when, what and at which price, and is as it was.
    say("audit", "verify")
    lines = say("audit", "export").out.splitlines()
    [record] = [
        each for each in map(json.loads, lines) if each["record"] == "repricing"
    ]
    text = json.dumps(record)
    for word in ("ann", "price list", "1/2, 2026-11-01", "0.00014"):
        assert word in text, word
    trail = project / "trail.jsonl"
    say("audit", "export", "--output", trail)
    say("audit", "verify", trail)


def test_tokens_that_are_unknown_need_an_amount_for_each_call(
    project: Path, say: Say
) -> None:
    say("reprice", "--usd-each", "0.5", "--apply", code=2)  # of which calls?
    say("reprice", "--price", "1/2", code=2)  # of which model?
    say("reprice", "--model", "nobody", code=2)
    for wrong in ("x", "-1", "nan", "1e99"):
        say("reprice", "--run", "latest", "--usd-each", wrong, code=2)
    done = say(
        "reprice",
        "--run",
        "latest",
        "--usd-each",
        "0.5",
        "--price",
        "0.5/1",
        "--model",
        "small",
        "--apply",
    )
    assert "4 calls repriced" in done.out
    assert figures(say) == (3 * GIVEN + Decimal("0.5"), 0, 4)
    assert spent(say) == {3 * GIVEN + Decimal("0.5")}
    say("audit", "verify")


def test_a_known_cost_changes_by_an_explicit_wish_alone(
    project: Path, say: Say
) -> None:
    set_price(project, PRICE)
    say("reprice", "--apply")
    say("reprice", "--model", "small", "--price", "0.5/1", "--apply")
    assert figures(say) == (3 * PRICED, 1, 3)
    say("reprice", "--all-of", "small", "--price", "0.5/1", "--apply")
    assert figures(say) == (3 * GIVEN, 1, 3)
    assert spent(say) == {3 * GIVEN}
    name = json.loads(say("budgets", "--json").out)[0]["name"]
    history = json.loads(say("budgets", name, "--json").out)
    changes = [Decimal(row["usd"]) for row in history if row["kind"] == "repriced"]
    assert changes == [PRICED] * 3 + [GIVEN - PRICED] * 3
    say("audit", "verify")


def ledger_of(project: Path) -> Ledger:
    opened = Project(project)
    return Ledger.open(opened.ledger_url, root=opened.root)


def new_costs(ledger: Ledger) -> tuple[list[NewCost], Origin]:
    scope = CallScope(model="small")
    calls = [call for call in ledger.repricing.calls(scope) if call.usage]
    changes = [NewCost(call.id, None, PRICED) for call in calls]
    origin = Origin(scope=scope, price={}, catalog_hash=None, by="ann")
    return changes, origin


def test_two_at_once_change_each_call_once(project: Path, say: Say) -> None:
    changed: list[int] = []
    ready = threading.Barrier(2)

    def apply() -> None:
        with ledger_of(project) as ledger:
            changes, origin = new_costs(ledger)
            ready.wait(60)
            changed.append(ledger.repricing.apply(changes, origin))

    threads = [threading.Thread(target=apply) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(changed) == [0, 3]
    assert figures(say) == (3 * PRICED, 1, 3)
    assert spent(say) == {3 * PRICED}
    say("audit", "verify")


def test_a_kill_in_the_middle_leaves_parts_that_are_whole(
    project: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierwise.ledger.people.repricing._CHUNK", 2)
    from tierwise.ledger.people import repricing

    seal = repricing.seal_row
    sealed: list[int] = []

    def dying(*arguments: object) -> None:
        if sealed:
            raise SystemExit  # before the second part is committed
        sealed.append(1)
        seal(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as killed, ledger_of(project) as ledger:
        killed.setattr(repricing, "seal_row", dying)
        changes, origin = new_costs(ledger)
        with pytest.raises(SystemExit):
            ledger.repricing.apply(changes, origin)
    assert figures(say) == (2 * PRICED, 2, 2)
    assert spent(say) == {2 * PRICED}
    say("audit", "verify")
    set_price(project, PRICE)
    assert "1 call repriced" in say("reprice", "--apply").out
    assert figures(say) == (3 * PRICED, 1, 3)
    assert spent(say) == {3 * PRICED}
    say("audit", "verify")


@pytest.mark.parametrize("database", ["sqlite"])
def test_a_new_cost_without_a_record_is_found(project: Path, say: Say) -> None:
    import sqlalchemy as sa

    engine = sa.create_engine(Project(project).ledger_url or "")
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE attempts SET repriced = 1 WHERE cost IS NULL")
        )
    engine.dispose()
    assert "its new cost is not the one on record" in say("audit", "verify", code=1).out


def test_calls_of_the_flex_tier_and_writes_to_the_cache_have_their_own_prices(
    project: Path, say: Say, standin: Standin
) -> None:
    written = {**COUNTS, "prompt_tokens_details": {"cache_write_tokens": 60}}
    standin.faults([Fault(usage=written, service_tier="flex"), Fault(usage=written)])
    with Engine(Project(project), env={}) as engine:
        run = engine.start_run("inbox", budget_usd=Decimal(1))
        documents = tuple(
            Document(id=f"{n}", text=f"{TEXT} flex {n}", sensitivity="internal")
            for n in range(2)
        )
        engine.run_batch(run, CLASSIFY, Batch(documents), LABELS).load()
        engine.finish_run(run, "completed")
    price = PRICE.replace(
        "{input: 1", "{cache_write: 1.25, flex: {discount: 0.75}, input: 1"
    )
    set_price(project, price)
    say("reprice", "--run", "latest", "--apply")
    # 40 plain at 1, 60 written at 1.25, 20 answered at 2 USD a million; a quarter by flex
    online = Decimal("0.000155")
    assert figures(say)[0] == online + online / 4
    # A price of one's own is that of online calls, too.
    say(
        "reprice",
        "--all-of",
        "small",
        "--price",
        "2/4/2/2.5",
        "--run",
        "latest",
        "--apply",
    )
    assert figures(say)[0] == 2 * (online + online / 4)
    say("reprice", "--price", "1/2/3/4/5", "--model", "small", code=2)
