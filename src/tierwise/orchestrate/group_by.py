"""`group_by`: batches of documents become batches of groups, each a document of its own.

It waits for all documents first, since any of them may be a member. Two passes over the stored
batches: the first asks for the keys and keeps no text, the second makes as many groups at once as
fit into memory.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from prefect.futures import PrefectFuture

from tierwise.documents import in_batches
from tierwise.documents.groups import (
    MakeText,
    group_id,
    group_of,
    joined_text,
    key_text,
    named,
)
from tierwise.engine import UNKNOWN, Unknown
from tierwise.errors import Misuse, TierwiseError, UnknownName, describe_exception
from tierwise.orchestrate.batch_task import Batches
from tierwise.orchestrate.documents import result_of
from tierwise.orchestrate.folders import flow_name
from tierwise.orchestrate.prefect_ui import log_to_run
from tierwise.orchestrate.runs import Run, current_run
from tierwise.plan.assumed_outcomes import assumed_steps
from tierwise.records import GROUP_BY, Batch, Cause, Document, Outcome, Status
from tierwise.text.amounts import plural

log = logging.getLogger(__name__)

Key = str | Callable[[Document], Any]
# Whether a group waits for members that were deferred, or goes on without them.
IncompleteGroups = Literal["wait", "leave_out"]
_MOST_MEMBERS = 1000
_MOST_CHARACTERS = 20_000_000  # of a group's text, as of a file's
_CHARACTERS_AT_ONCE = 50_000_000  # of the members that are in memory


def group_by(
    batches: Batches,
    key: Key,
    *,
    text: MakeText | None = None,
    batch_size: int = 50,
    most: int = _MOST_MEMBERS,
    incomplete: IncompleteGroups = "wait",
) -> Sequence[Batch]:
    """Return batches of groups: all documents with the same key are one document.

    `suppliers = group_by(extracted, lambda document: extract.of(document).company.value)`. The key
    is a function of a document, or the name of a field of its metadata. It is a text, a number or a
    date; a document whose key is None or empty is in no group, which is on record.

    A group has the id `group/KEY`, the key as `group` in its metadata, and `members`: their ids,
    hashes, metadata and accepted outputs. It is as sensitive as the strictest of them, and a guard
    that matches a member matches the group. Its text is that of its members in order, each after
    a line that no member can forge, or what `text` makes of them.

    A group waits where a member was deferred, and where a deferred document has no key, so that it
    may belong to any group. With `incomplete="leave_out"` groups go on without these; `incomplete`
    in a group's metadata names what it lacks. Groups always wait for provider batches, and never
    for a document that a reviewer rejected. A group of more than `most` members is deferred. Raises
    Misuse in a run with a shard, which has only some of the members.
    """
    run = current_run()
    if incomplete not in get_args(IncompleteGroups):
        raise UnknownName("value of incomplete", incomplete, get_args(IncompleteGroups))
    if run.has_shard:
        raise Misuse(
            "group_by: this run reads a shard, and a group needs all of its members; "
            "run the flow without `shard`"
        )
    if most < 1:
        raise Misuse(f"group_by: most is {most}; a group has at least 1 member")
    if isinstance(batches, PrefectFuture):
        batches = batches.result()
    if isinstance(batches, Batch):
        raise Misuse("group_by takes a list of batches; put a single batch in a list")
    stored = [result_of(run, batch) for batch in batches]
    grouping = _Grouping(run, _function_of(key), text, most, incomplete)
    grouping.find_members(stored)
    made = in_batches(grouping.groups(stored), batch_size)
    held = [run.hold(batch.called("groups")) for batch in made]
    total = sum(batch.size for batch in held)
    log_to_run("%s: %s", GROUP_BY, grouping.describe(total))
    return [batch.with_total(total) for batch in held]


def _function_of(key: Key) -> Callable[[Document], Any]:
    if not isinstance(key, str):
        return key
    return lambda document: document.metadata.get(key)


@dataclass(frozen=True, slots=True)
class _Seat:
    """A document that may be a member: its place in the batches, and why it stopped."""

    batch: int
    position: int
    id: str
    characters: int
    stopped: str = ""  # such as `extract was deferred`
    is_waiting: bool = False  # for a provider batch


@dataclass
class _Grouping:
    """One call of `group_by`."""

    run: Run
    key: Callable[[Document], Any]
    text: MakeText | None
    most: int
    incomplete: IncompleteGroups
    seats: dict[str, list[_Seat]] = field(default_factory=lambda: defaultdict(list))
    # deferred documents without a key, which may belong to any group
    homeless: list[_Seat] = field(default_factory=list)
    # documents whose keys a plan does not know yet
    unknown: list[_Seat] = field(default_factory=list)
    members: int = 0
    left_out: int = 0

    # ---- the first pass

    def find_members(self, batches: Sequence[Batch]) -> None:
        """Find the key of every document, and record those that are in no group."""
        for number, batch in enumerate(batches):
            for position, document in enumerate(batch.load()):
                self._place(document, number, position)
        self._assume_groups()

    def _place(self, document: Document, batch: int, position: int) -> None:
        stopped = document.stopped
        if stopped is not None and stopped.status == "rejected":
            self._leave_out(document, "earlier_step", f"{stopped.step} was rejected")
            return
        key = self._key_of(document)
        seat = _Seat(
            batch,
            position,
            document.id,
            len(document.text),
            stopped=f"{stopped.step} was {stopped.status}" if stopped else "",
            is_waiting=stopped is not None and stopped.status == "waiting",
        )
        must_leave = bool(seat.stopped) and not seat.is_waiting
        if must_leave and self.incomplete == "leave_out":
            self._leave_out(document, "earlier_step", seat.stopped)
            if isinstance(key, str):
                self.seats[key].append(seat)
        elif isinstance(key, str):
            self.seats[key].append(seat)
        elif isinstance(key, Unknown):
            self.unknown.append(seat)
        elif seat.stopped:
            self.homeless.append(seat)
        else:
            self._leave_out(document, "condition", "its key is None")

    def _key_of(self, document: Document) -> str | Unknown | None:
        """Return a document's key; None where it has none, or stopped before it has one."""
        try:
            key = self.run.engine.evaluate(self.key, document)
        except Exception as error:
            # A function that reads outputs fails in any way where there are none.
            if document.stopped:
                return None
            if isinstance(error, TierwiseError):  # its words quote no document
                raise
            raise self._error("key", error, document.id) from None
        if key is UNKNOWN:
            return UNKNOWN
        return key_text(key)

    def _error(self, name: str, error: Exception, where: str) -> TierwiseError:
        log.info("%s: %s raised for %s", GROUP_BY, name, where)
        return TierwiseError(
            f"{GROUP_BY}: the function `{name}` raised {describe_exception(error)} for {where}; "
            "its words are left out, as they may quote a document"
        )

    def _leave_out(self, document: Document, cause: Cause, reason: str) -> None:
        """Put a document on record that is in no group."""
        self.left_out += 1
        outcome = Outcome(
            step=GROUP_BY,
            status="skipped",
            cause=cause,
            reason=reason,
            sensitivity=document.strictest,
        )
        self.run.engine.record(self.run.context, document, outcome)

    def _assume_groups(self) -> None:
        """Make groups of some size of the documents whose keys are not known yet."""
        if not self.unknown:
            return
        flow = flow_name() or "script"
        size = self.run.engine.assumed_group_size(flow, len(self.unknown))
        for start in range(0, len(self.unknown), size):
            number = start // size + 1
            self.seats[f"(group {number})"] = self.unknown[start : start + size]

    # ---- the second pass

    def groups(self, batches: Sequence[Batch]) -> Iterator[Document]:
        """Yield the groups in the order of their first members, recorded."""
        for keys in self._portions():
            wanted: dict[int, set[int]] = defaultdict(set)
            for key in keys:
                for seat in self._present(key):
                    wanted[seat.batch].add(seat.position)
            loaded: dict[tuple[int, int], Document] = {}
            for number in sorted(wanted):
                documents = batches[number].load()
                for position in wanted[number]:
                    loaded[number, position] = documents[position]
            made = []
            for key in keys:
                seats = self._present(key)
                members = [loaded[seat.batch, seat.position] for seat in seats]
                made.append((self._group(key, members), members))
            yield from self.run.engine.start_groups(self.run.context, made)

    def _portions(self) -> Iterator[list[str]]:
        """Yield the keys of as many groups as fit into memory at once, at least one."""
        portion: list[str] = []
        characters = 0
        for key in self.seats:
            seats = self._present(key)
            if not seats:
                continue
            size = sum(seat.characters for seat in seats)
            if portion and characters + size > _CHARACTERS_AT_ONCE:
                yield portion
                portion = []
                characters = 0
            portion.append(key)
            characters += size
        if portion:
            yield portion

    def _present(self, key: str) -> list[_Seat]:
        """Return the members that a group is made of."""
        seats = self.seats[key]
        if self.incomplete == "wait":
            return seats
        return [seat for seat in seats if not seat.stopped or seat.is_waiting]

    def _group(self, key: str, members: Sequence[Document]) -> Document:
        """Return a group, with the outcome that says why it waits, if it does."""
        seats = self.seats[key]
        present = self._present(key)
        here = {seat.id for seat in present}
        missing = [seat.id for seat in seats if seat.id not in here]
        waits = self._why_waiting(present)
        text = "" if waits else self._text_of(key, members)
        if waits is None:
            waits = _unfit(text)
        unique = group_id(key, self.run.group_ids)
        self.run.group_ids.add(unique)
        group = group_of(key, members, id=unique, text=text, left_out=missing)
        self.members += len(members)
        if waits is None:
            return group
        return group.with_outcome(replace(waits, sensitivity=group.sensitivity))

    def _why_waiting(self, seats: Sequence[_Seat]) -> Outcome | None:
        """Return the outcome of a group that cannot go on yet."""
        stopped = [seat for seat in seats if seat.stopped]
        waiting = [seat for seat in (*stopped, *self.homeless) if seat.is_waiting]
        if waiting:
            ids = [seat.id for seat in waiting]
            reason = f"waits for provider batches of {named(ids)}"
            return _waiting("waiting", "batch", reason)
        if stopped:
            number = f"{len(stopped)} of its {plural(len(seats), 'member')}"
            reason = f"waits for {number}: {_reasons(stopped)}"
        elif self.homeless:
            number = plural(len(self.homeless), "document")
            reason = (
                f"waits for {number} that may belong to it: {_reasons(self.homeless)}"
            )
        elif len(seats) > self.most:
            reason = (
                f"it has {len(seats):,} members, more than the limit of {self.most:,}; "
                "give group_by a higher `most`, or a key that makes smaller groups"
            )
        else:
            return None
        return _waiting("deferred", "members", reason)

    def _text_of(self, key: str, members: Sequence[Document]) -> str:
        if self.text is None:
            return joined_text(members)
        try:
            made = self.text(members)
        except Exception as error:  # noqa: BLE001 - a project's own code
            if any(assumed_steps(member) for member in members):
                # A plan has only outputs of the right shape.
                return joined_text(members)
            raise self._error("text", error, f"the group {key!r}") from None
        if not isinstance(made, str):
            kind = type(made).__name__
            raise Misuse(f"group_by: `text` returns the group's text, not a {kind}")
        return made

    def describe(self, groups: int) -> str:
        """Return the result in one line."""
        made = f"{plural(self.members, 'document')} in {plural(groups, 'group')}"
        if self.homeless:
            made += f", {len(self.homeless)} without a key, as they wait themselves"
        if self.left_out:
            made += f", {self.left_out} left out"
        return made


def _unfit(text: str) -> Outcome | None:
    """Return the outcome of a group whose text no model can be asked about."""
    if not text.strip():
        reason = "its text is empty; see the function `text` of group_by"
    elif len(text) > _MOST_CHARACTERS:
        reason = (
            f"its text has {len(text):,} characters, more than the limit of "
            f"{_MOST_CHARACTERS:,}; give group_by a `text` that is shorter, or a key that makes "
            "smaller groups"
        )
    else:
        return None
    return _waiting("deferred", "members", reason)


def _waiting(status: Status, cause: Cause, reason: str) -> Outcome:
    return Outcome(step=GROUP_BY, status=status, cause=cause, reason=reason)


def _reasons(seats: Sequence[_Seat]) -> str:
    return named([f"{seat.id} ({seat.stopped})" for seat in seats])
