"""A flow over several processes: who takes which documents, and what holds for all of them together.

The runs on real clusters take a minute or two each, so they run with `make scale-test` and not with `make test`.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scale import killed, server
from tests.kit.ledgers import python
from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin, sensible_answer
from tierwise.documents import Shard, iter_documents
from tierwise.documents.spool import Spool, SpoolFolder
from tierwise.engine import SPOOL, Engine
from tierwise.errors import ConfigError, Misuse, RateLimited, TierwiseError, UnknownName
from tierwise.orchestrate.batch_runner import BatchTaskRunner
from tierwise.orchestrate.run_manifest import find_manifest, join_run, write_manifest
from tierwise.orchestrate.task_runners import task_runner
from tierwise.project import Project
from tierwise.records import Batch, Document

RULES = "{version: 1, routes: [{name: default, try: [small]}]}"


@pytest.fixture
def project(tmp_path: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one model, around the current folder."""
    root = make_project(tmp_path / "project", model("small", standin.url), rules=RULES)
    monkeypatch.chdir(root)
    return root


# --- shards


@given(st.text(), st.integers(1, 40))
def test_each_document_is_in_one_shard(name: str, of: int) -> None:
    assert sum(Shard(number, of).holds(name) for number in range(1, of + 1)) == 1


def test_shards_split_a_folder_with_nothing_left_and_nothing_twice(
    tmp_path: Path,
) -> None:
    """Files and rows, also rows that share an id, have the same ids and texts as when all is read at once."""
    for n in range(60):
        (tmp_path / f"{n}.txt").write_text(f"Letter {n}")
    rows = [json.dumps({"id": n % 30, "text": f"Row {n}"}) for n in range(90)]
    (tmp_path / "rows.jsonl").write_text("\n".join([*rows, "{broken"]))
    whole = {d.id: d.text for d in iter_documents(tmp_path, sensitivity="internal")}
    parts = [
        [
            (d.id, d.text)
            for d in iter_documents(tmp_path, sensitivity="internal", shard=Shard(k, 7))
        ]
        for k in range(1, 8)
    ]
    assert len(whole) == 151
    assert all(parts)
    assert sorted(pair for part in parts for pair in part) == sorted(whole.items())


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "a/b", "1/2/3", "-1/2"])
def test_what_is_no_shard_is_told(text: str) -> None:
    with pytest.raises(Misuse, match="write 2/8"):
        Shard.parse(text)


def test_a_shard_without_documents_is_fine(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("alone")
    sizes = [
        len(list(iter_documents(tmp_path, sensitivity="internal", shard=Shard(k, 9))))
        for k in range(1, 10)
    ]
    assert sorted(sizes) == [0] * 8 + [1]


# --- the choice of a task runner


def test_threads_are_the_task_runner_unless_the_project_says_otherwise(
    project: Path,
) -> None:
    assert isinstance(task_runner(), BatchTaskRunner)


def test_the_project_chooses_dask_and_variables_take_its_place(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("prefect_dask")
    (project / "pyproject.toml").write_text(
        '[tool.tierwise]\ntask_runner = "dask"\nworkers = 3\n'
    )
    runner = task_runner()
    assert type(runner).__name__ == "DaskTaskRunner"
    assert vars(runner)["cluster_kwargs"]["n_workers"] == 3
    monkeypatch.setenv("TIERWISE_CLUSTER", "tcp://10.0.0.1:8786")
    assert vars(task_runner())["address"] == "tcp://10.0.0.1:8786"
    monkeypatch.setenv("TIERWISE_TASK_RUNNER", "threads")
    assert isinstance(task_runner(), BatchTaskRunner)


def test_ray_is_chosen_by_a_variable(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("prefect_ray")
    monkeypatch.setenv("TIERWISE_TASK_RUNNER", "ray")
    monkeypatch.setenv("TIERWISE_WORKERS", "2")
    assert vars(task_runner())["init_kwargs"]["num_cpus"] == 2


@pytest.mark.parametrize(
    ("kind", "package"), [("dask", "prefect_dask.task_runners"), ("ray", "ray")]
)
def test_a_missing_extra_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, kind: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    monkeypatch.setenv("TIERWISE_TASK_RUNNER", kind)
    with pytest.raises(Misuse, match=rf"pip install 'tierwise\[{kind}\]'"):
        task_runner()


def test_a_wrong_setting_is_told_with_its_place(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERWISE_WORKERS", "many")
    with pytest.raises(Misuse, match="TIERWISE_WORKERS is 'many'"):
        task_runner()
    (project / "pyproject.toml").write_text('[tool.tierwise]\ntask_runner = "dusk"\n')
    with pytest.raises(ConfigError, match=r"pyproject.toml:1: task_runner.*'dusk'"):
        task_runner()


# --- limits


def test_processes_share_the_limits_of_a_model(
    project: Path, monkeypatch: pytest.MonkeyPatch, standin: Standin
) -> None:
    """With 4 workers, each has 2 of the 8 calls that the model takes at once."""
    monkeypatch.setenv("TIERWISE_WORKERS", "4")
    under_way: list[int] = []

    def answer(request: Request) -> str:
        under_way.append(standin.count - len(under_way))
        return sensible_answer(request)

    standin.latency_s = 0.05
    standin.answer(answer)
    with Engine(Project(project), env={}) as engine:
        engine.run_batch(engine.start_run("f"), classify(engine), letters(12), LABELS)
    assert len(under_way) == 12
    assert max(under_way) == 2


@given(st.integers(1, 500), st.none() | st.integers(1, 10_000), st.integers(1, 64))
def test_shares_are_never_more_than_the_whole_and_never_nothing(
    concurrency: int, per_minute: int | None, workers: int
) -> None:
    from tierwise.policy.catalog import Model

    whole = Model(
        tier="local",
        context_tokens=1,
        max_output_tokens=1,
        price="unknown",
        strength=1,
        concurrency=concurrency,
        requests_per_minute=per_minute,
        tokens_per_minute=per_minute,
    )
    share = whole.shared_by(workers)
    assert share.concurrency >= 1
    assert share.concurrency * workers <= max(concurrency, workers)
    assert (share.requests_per_minute is None) == (per_minute is None)
    if per_minute and share.requests_per_minute and share.tokens_per_minute:
        assert share.requests_per_minute * workers <= max(per_minute, workers)
        assert share.requests_per_minute == share.tokens_per_minute


# --- one run in several processes


LABELS = {"labels": ["billing", "delivery"]}


def letters(number: int) -> Batch:
    return Batch(
        tuple(
            Document(id=str(n), text=f"Desk {n} is late.", sensitivity="internal")
            for n in range(number)
        )
    )


def classify(engine: Engine) -> object:
    return engine.project.load_step("classify")


def test_another_process_works_for_the_run_under_its_budget(
    project: Path, standin: Standin
) -> None:
    """Its outcomes, attempts and costs are the run's, and a budget that is spent here is spent there."""
    with Engine(Project(project)) as engine:
        run = engine.start_run("f", budget_usd=Decimal("0.0011"), flow_run_id="one")
        spool = Spool(project / SPOOL, run.id)
        write_manifest(spool.path, "one", engine, run)
        code = """
            import sys
            from pathlib import Path
            from tierwise.engine import SPOOL, Engine
            from tierwise.orchestrate.run_manifest import find_manifest, join_run
            from tierwise.project import Project
            from tests.test_scale import LABELS, classify, letters
            with Engine(Project.find()) as engine:
                run = join_run(find_manifest(engine.project.root, "one"), engine)
                done = engine.run_batch(run, classify(engine), letters(12), LABELS)
                print(run.id, *[d.outcomes["classify"].status for d in done.load()])
            """
        child = python(code)
        out, err = child.communicate(timeout=100)
        assert child.returncode == 0, err
        told_run, *statuses = out.split()
        assert told_run == run.id
        assert 0 < statuses.count("accepted") < 12
        assert statuses.count("accepted") + statuses.count("deferred") == 12
        [row] = engine.ledger.runs.newest()
        assert (row.documents, row.attempts) == (12, standin.count)
        assert row.cost is not None
        assert row.cost <= Decimal("0.0011")
        after = engine.run_batch(
            run,
            classify(engine),
            Batch((Document(id="x", text="y", sensitivity="internal"),)),
            LABELS,
        )
        assert after.load()[0].outcomes["classify"].status == "deferred"
        spool.close()


def test_batches_of_another_process_are_in_the_runs_folder_and_go_with_it(
    project: Path,
) -> None:
    spool = Spool(project / SPOOL, "run")
    held = pickle.loads(pickle.dumps(SpoolFolder(spool.path).put(letters(3))))
    assert held.load() == letters(3).load()
    spool.close()
    with pytest.raises(Misuse, match="a worker elsewhere has to share"):
        held.load()
    assert list((project / SPOOL).iterdir()) == []


def test_a_worker_that_would_decide_otherwise_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(Project(project), env={}) as engine:
        run = engine.start_run("f", flow_run_id="one")
        spool = Spool(project / SPOOL, run.id)
        write_manifest(spool.path, "one", engine, run)
        note = find_manifest(project, "one")
        with Engine(Project(project), env={}) as same:
            assert join_run(note, same).policy.hash == run.policy.hash
        monkeypatch.setenv("TIERWISE_WORKERS", "5")
        with (
            Engine(Project(project), env={}) as busy,
            pytest.raises(Misuse, match="workers = 5, the run 1"),
        ):
            join_run(note, busy)
        monkeypatch.delenv("TIERWISE_WORKERS")
        prompt = project / "prompts" / "classify.md.j2"
        prompt.write_text(prompt.read_text() + "\nBe quick.\n")
        with (
            Engine(Project(project), env={}) as other,
            pytest.raises(Misuse, match="other routing rules or prompts"),
        ):
            join_run(note, other)
        spool.close()
        with pytest.raises(Misuse, match="has to share this folder"):
            find_manifest(project, "one")


def test_a_worker_without_a_key_that_the_run_has_is_refused(
    tmp_path: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyed = model("small", standin.url).replace(
        "api_key: test", 'api_key: "${SMALL_KEY}"'
    )
    root = make_project(tmp_path / "project", keyed, rules=RULES)
    with (
        Engine(Project(root), env={"SMALL_KEY": "k"}) as engine,
        Engine(Project(root), env={}) as without,
    ):
        run = engine.start_run("f", flow_run_id="one")
        spool = Spool(root / SPOOL, run.id)
        write_manifest(spool.path, "one", engine, run)
        with pytest.raises(
            Misuse, match="cannot use small, as the run may: set SMALL_KEY"
        ):
            join_run(find_manifest(root, "one"), without)
        spool.close()


def test_a_retry_goes_on_in_another_process(project: Path) -> None:
    """What the earlier run settled is not asked again there either."""
    from tierwise.cascade.known_outcomes import Retry

    with Engine(Project(project), env={}) as engine:
        engine.retry = Retry("before", frozenset({"a", "b"}), frozenset({"b"}))
        run = engine.start_run("f", flow_run_id="one")
        spool = Spool(project / SPOOL, run.id)
        write_manifest(spool.path, "one", engine, run)
        with Engine(Project(project), env={}) as other:
            joined = join_run(find_manifest(project, "one"), other)
        assert joined.retry is not None
        assert (joined.retry.run_id, joined.retry.again) == ("before", frozenset({"b"}))
        spool.close()


@pytest.mark.parametrize(
    "error",
    [
        RateLimited("slow down", model="small", retry_after=2.5),
        UnknownName("model", "smal", ["small"]),
        ConfigError("is wrong", path="rules.yaml", line=3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_crosses_to_another_process_as_it_is(error: TierwiseError) -> None:
    came = pickle.loads(pickle.dumps(error))
    assert type(came) is type(error)
    assert str(came) == str(error)
    assert vars(came) == vars(error)


# --- real clusters


@pytest.fixture(scope="module")
def prefect() -> Iterator[tuple[str, Path]]:
    """A real Prefect server: its address, and the file of its database."""
    with server() as found:
        yield found


@pytest.mark.skipif(
    "TIERWISE_SCALE_TEST" not in os.environ, reason="make scale-test runs it"
)
@pytest.mark.timeout(590)
@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_a_killed_worker_loses_no_document_and_pays_again_only_what_was_under_way(
    kind: str, tmp_path: Path, prefect: tuple[str, Path]
) -> None:
    """400 confidential documents on 2 worker processes and PostgreSQL; one is ended by SIGKILL half-way."""
    report = killed(kind, tmp_path, *prefect)
    assert report.apart
    assert report.complete
    assert report.distinct == 1200
    assert report.again <= report.in_flight
    assert not report.left
