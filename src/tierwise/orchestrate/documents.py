"""Documents of a run: read in batches at its beginning, and written at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from prefect.futures import PrefectFuture

from tierwise.cascade.passing import is_passing
from tierwise.documents import (
    LeftOut,
    Origin,
    SeenFiles,
    Shard,
    Watch,
    in_batches,
    iter_documents,
    iter_items,
)
from tierwise.documents.groups import PREFIX
from tierwise.documents.places import (
    check_is_no_project,
    place_of,
    source_of,
)
from tierwise.documents.readers.settings import Attachments, ReadingSettings, Tables
from tierwise.errors import Misuse
from tierwise.orchestrate.done_files import (
    DoneFolder,
    begin_done_folder,
    check_done_folders,
)
from tierwise.orchestrate.failures import describe_failure
from tierwise.orchestrate.folders import (
    begin_source,
    flow_name,
    flow_parameters,
    same_folders,
)
from tierwise.orchestrate.prefect_ui import log_to_run
from tierwise.orchestrate.process_state import STATE
from tierwise.orchestrate.runs import Run, current_run
from tierwise.project import Project, ProjectSettings
from tierwise.records import Batch, Document, Incomplete, Sensitivity

_HELD_AT_ONCE = 50  # documents
SEEN = Path(".tierwise/seen")  # below the project's root
# Ids within the source, and hashes.
Settled = frozenset[tuple[str, str]]

T = TypeVar("T")


def read_documents(
    source: Path,
    *,
    sensitivity: Sensitivity = "restricted",
    batch_size: int = 50,
    text_column: str = "text",
    max_bytes: int = 20_000_000,
    only_new: bool = False,
    shard: str = "1/1",
    incomplete: Incomplete | None = None,
    tables: Tables | None = None,
    rows_at: str | None = None,
    attachments: Attachments | None = None,
    minimum_age: timedelta | None = None,
    done: Path | None = None,
) -> Sequence[Batch]:
    """Return the documents of a folder or file in batches.

    Those that cannot be read are on record as deferred. Batches are handles: their documents wait
    on disk until a task works on them. The first batch is read now, the others while the first
    step is mapped over them, so that work begins before all is read; `len` reads to the end.

    `text_column` holds the text in CSV and JSON Lines files, and in tables of other formats, for
    which `tables` and `rows_at` say where the rows are. With `attachments`, files attached to
    e-mails are "documents", or only their "names" are read. These three are the project's settings
    of those names unless they are given; a file of more than `max_bytes` is
    deferred. `only_new` leaves out documents that an earlier run of this flow completed: from the
    same source to the same output, under the same id and with the same text. Those deferred for a
    passing reason (a rate limit, an outage, a budget, a missing key) are taken again; no documents
    at all are fine then.
    `shard` takes the documents of one part alone: with "2/8", those of the second of eight, which
    together hold every document once. `incomplete` is the project's setting of that name unless it
    is given: with "accept", a document that lost a part on reading goes on; with "wait_for_pages",
    it is deferred where whole pages are missing; with "wait", always. A file
    that has changed within `minimum_age` (default: the project's setting with `only_new`, else none)
    is left for the next run.

    `done` is a folder that files of the source move to at the run's end, once the results of all
    their documents are written and on record; files with a document that waits stay. It includes
    `only_new`. Raises Misuse when there is nothing to read, and for a done folder that cannot be
    one.
    """
    run = current_run()
    folder = _source_folder(run, source)
    # What is done leaves the source, so its results have to stay.
    run.only_new = only_new or done is not None
    settings = _settings(run)
    origin = begin_source(run, source_of(folder, run.engine.project.root))
    done_folder = None
    if done is not None:
        done_folder = begin_done_folder(run, origin.source, folder, done)
    check_done_folders(run, [])
    incomplete = incomplete or settings.incomplete
    age_s = 0.0
    if minimum_age is not None:
        age_s = minimum_age.total_seconds()
    elif _leaves_out(run):
        age_s = settings.minimum_age
    part = Shard.parse(shard)
    run.has_shard = run.has_shard or part.of > 1
    # what decides, with a file's bytes, which documents it gives
    how = _reading(run, tables, rows_at, attachments)
    reading = [shard, text_column, max_bytes, incomplete, *how.key()]

    def read(settled: Settled | None) -> Iterator[Document]:
        left_out = LeftOut()
        if done_folder is not None:
            done_folder.files.clear()
        watch = _watch(run, origin, age_s, settled, reading, done_folder)
        documents = iter_documents(
            folder,
            sensitivity=sensitivity,
            text_column=text_column,
            max_bytes=max_bytes,
            shard=part,
            incomplete=incomplete,
            left_out=left_out,
            origin=origin,
            watch=watch,
            settings=how,
        )
        return _then_said(run, documents, left_out, watch)

    settled = _settled(run, origin)
    if settled and _makes_groups(run):
        documents = _all_if_one_is_new(run, read, settled)
    elif settled is not None:
        documents = _new_documents(run, read(settled), settled)
    else:
        documents = read(None)
    return _batches(run, documents, batch_size)


def documents_from(
    items: Iterable[Document | Mapping[str, Any]],
    *,
    sensitivity: Sensitivity | None = None,
    batch_size: int = 50,
    text_column: str = "text",
    max_bytes: int = 20_000_000,
    only_new: bool = False,
    shard: str = "1/1",
    source: str = "",
) -> Sequence[Batch]:
    """Return documents of your own in batches: rows of a database, messages of a queue.

    `documents_from({"id": row.id, "text": row.body} for row in rows)`. An item is a Document, or a
    mapping that is read like a row of a file: `text_column` has its text, `id` names it,
    `sensitivity` is its own, and everything but text and sensitivity is metadata. A mapping gets at
    least `sensitivity`, which is restricted by default; a Document keeps its own unless that is
    less strict.

    Everything else is as in `read_documents`: languages are found out, empty texts are deferred,
    the items are read while the first batches are worked on, and `only_new` and `shard` go by the
    id, so give each item one that stays. `source` names what the ids are unique in, such as a
    customer: where two sources have the same id, both documents are new. Raises Misuse for other
    items, and for none at all without `only_new`.
    """
    run = current_run()
    run.only_new = only_new
    origin = begin_source(run, source)
    settled = _settled(run, origin)
    part = Shard.parse(shard)
    run.has_shard = run.has_shard or part.of > 1
    documents = iter_items(
        items if only_new else _some(items),
        sensitivity=sensitivity,
        text_column=text_column,
        max_bytes=max_bytes,
        shard=part,
        origin=origin,
    )
    if settled and _makes_groups(run):
        documents = _all_once_one_is_new(run, documents, settled)
    elif settled is not None:
        documents = _new_documents(run, documents, settled)
    return _batches(run, documents, batch_size)


def _source_folder(run: Run, source: Path | str) -> Path:
    """Return the path of a source.

    Raises Misuse for the project's own folder, which an empty parameter also names, and for the
    folder that the run writes its results to.
    """
    root = run.engine.project.root
    path = root / source
    check_is_no_project(path, root)
    run.sources.append(path.resolve())
    # The shipped flows' name for it; write_documents checks any other.
    out = flow_parameters().get("out")
    if isinstance(out, str | Path):
        _check_out(run, root / out)
    return path


def _check_out(run: Run, folder: Path) -> None:
    """Raise Misuse where results would be written between the documents of the source."""
    if folder.resolve() in run.sources:
        raise Misuse(
            f"{folder}: the results would lie between the documents of the source; "
            "name another folder for them, which may be inside of it"
        )


def _then_said(
    run: Run, documents: Iterator[Document], left_out: LeftOut, watch: Watch | None
) -> Iterator[Document]:
    """Yield the documents, then say which files were left out."""
    yield from documents
    parts = [left_out.describe()]
    if watch:
        run.settled += watch.unopened
        run.still_written += len(watch.waiting)
        parts.append(watch.describe())
    others = "; ".join(filter(None, parts))
    if others:
        run.engine.left_out.append(others)
        log_to_run("not read: %s", others)


def _settings(run: Run) -> ProjectSettings:
    """Return the project's settings of now: a process that serves flows outlives a change."""
    return Project(run.engine.project.root).settings


def _reading(
    run: Run,
    tables: Tables | None,
    rows_at: str | None,
    attachments: Attachments | None,
) -> ReadingSettings:
    """Return the project's settings for files, with those that a flow gives in their place."""
    settings = Project(run.engine.project.root).reading
    return replace(
        settings,
        tables=tables or settings.tables,
        rows_at=settings.rows_at if rows_at is None else rows_at,
        attachments=attachments or settings.attachments,
    )


def _watch(
    run: Run,
    origin: Origin,
    minimum_age_s: float,
    settled: Settled | None,
    reading: Sequence[Any],
    done_folder: DoneFolder | None,
) -> Watch | None:
    """Return what earlier polls know of a source; None where it is read as a whole."""
    # Files that are done: they move at the run's end.
    files = None
    if done_folder is not None and run.engine.spool and STATE.dry_run is None:
        files = done_folder.files
    if settled is None:
        if not minimum_age_s and done_folder is None:
            return None
        return Watch(minimum_age_s, files=files)
    seen = None
    # a dry run leaves nothing behind
    if run.engine.spool:
        folder = run.engine.project.root / SEEN
        seen = SeenFiles.load(folder, origin.source, reading)
    return Watch(minimum_age_s, seen, lambda known: known in settled, files=files)


def _some(items: Iterable[T]) -> Iterator[T]:
    """Yield the items. Raises Misuse where there is none."""
    nothing = True
    for item in items:
        nothing = False
        yield item
    if nothing:
        raise Misuse(
            "documents_from got no document; with only_new=True that is no error"
        )


def _batches(
    run: Run, documents: Iterator[Document], batch_size: int
) -> Sequence[Batch]:
    """Return the documents that this run is about in batches, the first of them read."""
    retry = run.engine.retry
    if retry:
        documents = (
            document for document in documents if document.id in retry.documents
        )
    batches = run.read(_held_batches(run, documents, batch_size))
    return run.engine.select(batches)


def write_documents(
    batches: Iterable[Batch | PrefectFuture[Batch]],
    folder: Path,
    *,
    html: bool = False,
) -> Path:
    """Wait for the batches, write every document's outcomes below `folder`, return outcomes.jsonl.

    With `html`, each document has an HTML page, too: with its text, and the words that an answer
    quotes marked. Such a page is as confidential as the document.

    After `read_documents(…, only_new=True)` the results of earlier runs stay in it.
    """
    run = current_run()
    root = run.engine.project.root
    _check_out(run, root / folder)
    check_done_folders(run, [root / folder])
    run.outputs.append(place_of(folder, root))
    done = (result_of(run, batch) for batch in batches)
    return run.engine.write_documents(done, folder, keep=run.only_new, html=html)


def result_of(run: Run, batch: Batch | PrefectFuture[Batch]) -> Batch:
    """Wait for a batch. Raises TierwiseError for a task's OSError, which is none of writing."""
    if isinstance(batch, Batch):
        return batch
    try:
        return batch.result()
    except OSError as error:
        raise describe_failure(
            flow_name() or "script", error, run.engine.project.root
        ) from error


def _held_batches(
    run: Run, documents: Iterator[Document], batch_size: int
) -> Iterator[Batch]:
    """Yield each batch as a handle once it is read, counted and on record."""
    total = 0
    incomplete = 0
    for batch in in_batches(documents, batch_size):
        with run.recording:
            if run.is_stopped:  # and may be sealed by now
                return
            incomplete += _record_unreadable(run, batch)
        _keep_apart(run, batch)
        total += batch.size
        run.documents += batch.size
        run.engine.expected_documents += batch.size
        if run.progress:
            run.progress.total += batch.size
        yield run.hold(batch)
    if incomplete:
        log_to_run(
            "%d documents are read in part: `incomplete` in their metadata says which",
            incomplete,
        )
    if run.only_new and not run.engine.retry:
        log_to_run("%d documents are new, %d were done before", total, run.settled)


def _keep_apart(run: Run, batch: Batch) -> None:
    """Remember ids that look like those of groups, so that no group gets one of them."""
    for document in batch.load():
        if document.id.startswith(PREFIX):
            run.group_ids.add(document.id)


def _settled(run: Run, origin: Origin) -> Settled | None:
    """Return the documents that earlier runs of the flow are done with; None where all are meant.

    An earlier run counts where it read the same source and wrote to the same folder.
    """
    if not _leaves_out(run):
        return None
    flow = flow_name()
    if not flow:
        return frozenset()
    is_here = same_folders(run, origin.source)
    return run.engine.ledger.runs.settled(flow, is_passing, is_here)


def _new_documents(
    run: Run, documents: Iterable[Document], settled: Settled
) -> Iterator[Document]:
    """Yield the documents that no earlier run is done with, and count the others."""
    for document in documents:
        if (document.own_id, document.hash) in settled:
            run.settled += 1
        else:
            yield document


def _leaves_out(run: Run) -> bool:
    """Return True in a run that leaves out what earlier runs are done with."""
    return run.only_new and not run.engine.retry


def _makes_groups(run: Run) -> bool:
    """Return True if an earlier run of the flow made groups, as this one will."""
    flow = flow_name()
    return bool(flow) and run.engine.ledger.groups.has_any(str(flow))


def _all_if_one_is_new(
    run: Run, read: Callable[[Settled | None], Iterator[Document]], settled: Settled
) -> Iterator[Document]:
    """Yield all documents of a source if one of them is new, else none.

    A new document may belong to any group, and a group needs all of its members. What was paid for
    them is reused.
    """
    before = run.settled
    first_new = next(_new_documents(run, read(settled), settled), None)
    if first_new is None:
        return
    run.settled = before
    yield from read(frozenset())


def _all_once_one_is_new(
    run: Run, documents: Iterator[Document], settled: Settled
) -> Iterator[Document]:
    """Do the same for documents that can be read only once: those before it wait on disk."""
    held: list[Batch] = []
    number = 0
    batches = in_batches(documents, _HELD_AT_ONCE)
    for batch in batches:
        is_new = any(
            (document.own_id, document.hash) not in settled for document in batch.load()
        )
        if is_new:
            for earlier in held:
                yield from earlier.load()
            yield from batch.load()
            break
        held.append(run.hold(batch))
        number += batch.size
    else:
        run.settled += number
    for batch in batches:
        yield from batch.load()


def _record_unreadable(run: Run, batch: Batch) -> int:
    """Put the documents that could not be read on record; return the number of those in part."""
    incomplete = 0
    for document in batch.load():
        unreadable = document.outcomes.get("read")
        if unreadable:
            run.engine.record(run.context, document, unreadable)
        elif "incomplete" in document.metadata:
            incomplete += 1
    return incomplete
