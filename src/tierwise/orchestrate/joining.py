"""`join(a, b)`: the outcomes of several steps over the same batches, in one document each.

Every batch is joined as soon as each branch has it, in a task run of its own, so that the next step
begins while others are still read. Prefect shows all branches as its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from prefect import unmapped
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, PrefectFutureList

from tierwise.errors import Misuse
from tierwise.orchestrate.batch_reader import BatchReader
from tierwise.orchestrate.batch_runner import is_ordered
from tierwise.orchestrate.batch_task import Batches, BatchTask, task_run_name
from tierwise.orchestrate.mapped_batches import MappedBatches, Source
from tierwise.orchestrate.process_state import STATE
from tierwise.orchestrate.runs import current_run
from tierwise.records import Batch, Document, Outcome, highest

_NAME = "join"
_SAME_READING = "join steps that were mapped over the batches of one `read_documents`"
Submit = Callable[[Sequence[Source]], PrefectFuture[Batch]]


def join(
    *branches: Batches,
    wait_for: Iterable[PrefectFuture[Any]] | None = None,
    return_state: bool = False,
) -> PrefectFutureList[Batch]:
    """Return the batches of steps that ran side by side, each document with all of its outcomes.

    `review = join(classify.map(inbox, …), extract.map(inbox, …))` is mapped over like the batches
    of one step. A document is as sensitive as its strictest branch. One that stopped in a branch,
    such as a deferred one, is skipped by later steps, which name the branch's step. `wait_for` and
    `return_state` are Prefect's.

    Raises Misuse for branches that are not of the same batches, and for a step that both have:
    at once where that is known, else in the task run.
    """
    if not branches:
        raise Misuse("join takes the batches of one step or more: `join(a, b)`")
    parts = [_checked(branch) for branch in branches]

    def submit(sources: Sequence[Source]) -> Any:
        first, *others = sources
        return _join_task.submit(
            first, others=others, wait_for=wait_for, return_state=return_state
        )

    streaming = None if return_state else _streaming(parts)
    if streaming is not None:
        return MappedBatches.joined(streaming, submit)
    listed = [list(part) for part in parts]
    sizes = {len(batches) for batches in listed}
    if len(sizes) > 1:
        numbers = " and ".join(str(len(batches)) for batches in listed)
        raise Misuse(f"join got branches of {numbers} batches; {_SAME_READING}")
    # A step that two branches have is refused before anything is submitted.
    steps = MappedBatches()
    steps.note_branches(part for part in parts if isinstance(part, MappedBatches))
    futures = [submit(sources) for sources in zip(*listed, strict=True)]
    if return_state or STATE.dry_run:
        return PrefectFutureList(futures)  # type: ignore[abstract] # as Prefect does
    joined = MappedBatches(futures)
    joined.note_branches([steps])
    return joined


def _checked(branch: Batches) -> Iterable[Any]:
    """Return a branch's batches or futures. Raises Misuse for a single batch."""
    if isinstance(branch, unmapped):
        branch = branch.unwrap()
    if isinstance(branch, PrefectFuture):
        branch = branch.result()
    if isinstance(branch, Batch):
        raise Misuse(
            "join takes lists of batches, as `.map` and read_documents return them; "
            "put a single batch in a list"
        )
    return branch


def _streaming(parts: Sequence[Iterable[Any]]) -> list[MappedBatches] | None:
    """Return the branches whose batches are still read, None where a branch is a plain list.

    The batches of `read_documents` themselves add nothing to a step over them.
    """
    if STATE.dry_run:
        return None
    mapped = [part for part in parts if isinstance(part, MappedBatches)]
    readers = [part for part in parts if isinstance(part, BatchReader)]
    if not mapped or len(mapped) + len(readers) < len(parts):
        return None
    if any(part.thread is None for part in mapped):
        return None
    threads = [part.thread for part in mapped]
    if readers:
        run = current_run()
        if run.context.order != "depth" or not is_ordered():
            return None
        threads.extend(run.reading_thread(reader) for reader in readers)
    if any(thread is not threads[0] for thread in threads):
        raise Misuse(f"join got branches of different readings; {_SAME_READING}")
    return mapped


def _join(batch: Batch, *, others: Sequence[Batch]) -> Batch:
    """Join the documents of batches, one of each branch."""
    loaded = [batch.load(), *(other.load() for other in others)]
    sizes = {len(documents) for documents in loaded}
    if len(sizes) > 1:
        raise Misuse(
            f"join: {batch.label} of one branch, others in another; {_SAME_READING}"
        )
    joined = tuple(joined_document(same) for same in zip(*loaded, strict=True))
    return current_run().hold(batch.with_documents(joined))


_join_task = BatchTask(
    _join,
    name=_NAME,
    task_run_name=task_run_name(_NAME),  # type: ignore[arg-type] # Prefect asks for a class method of its own
    cache_policy=NO_CACHE,
    persist_result=False,  # document text stays out of Prefect's storage
)


def joined_document(branches: Sequence[Document]) -> Document:
    """Return one document with the outcomes of all branches, as sensitive as the strictest.

    Raises Misuse for another document, for one whose text a branch has changed, and for a step of
    which two branches have different outcomes.
    """
    first = branches[0]
    outcomes: dict[str, Outcome] = dict(first.outcomes)
    for other in branches[1:]:
        _check_same(first, other)
        for step, outcome in other.outcomes.items():
            kept = outcomes.setdefault(step, outcome)
            if _content(kept) != _content(outcome):
                raise Misuse(
                    f"join: two branches have an outcome of {step} for {first.id}, and they "
                    f"differ; {_map_once(step)}"
                )
    strictest = highest(*(document.sensitivity for document in branches))
    source = next(
        document.sensitivity_source
        for document in branches
        if document.sensitivity == strictest
    )
    return replace(
        first, outcomes=outcomes, sensitivity=strictest, sensitivity_source=source
    )


def _check_same(first: Document, other: Document) -> None:
    if first.id != other.id:
        raise Misuse(
            f"join: {first.id} in one branch, {other.id} in another; {_SAME_READING}"
        )
    if first.hash != other.hash:
        raise Misuse(
            f"join: the branches have different texts of {first.id}, such as a redacted one; "
            "join steps over the same text"
        )


def _map_once(step: str) -> str:
    return (
        f"map {step} once, before the branches, or give one of them another name: "
        '`step("other_name", …)`'
    )


def _content(outcome: Outcome) -> tuple[Any, ...]:
    """Return what makes two outcomes the same one: attempts are not kept between steps."""
    return (
        outcome.status,
        outcome.value,
        outcome.cause,
        outcome.reason,
        outcome.model,
        outcome.sensitivity,
    )
