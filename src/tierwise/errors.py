"""Every error that tierwise raises on purpose.

TierwiseError
├── Misuse                      the command or call was wrong (exit code 2)
│   ├── ConfigError             a project file is wrong: place, thing, remedy
│   │   └── UndefinedVariable   a prompt uses a variable that is not there
│   ├── UnknownName             no model, step, flow or run of that name
│   └── DecidedMeanwhile        another person decided about the item after it was read
├── TryAgain                    raised by a project's function: call it again later
├── DocumentError               a document cannot be read; it becomes a deferred one
│   └── ConversionStopped       its converter was ended from outside: that may pass
├── ModelUnavailable            a model cannot be used here; says what to set
│   └── WeightsError            the embedded model's weights are missing or damaged
├── LedgerError                 the ledger cannot be opened, migrated or written
│   └── LedgerAway              its database is gone, locked or full: that may pass
├── BudgetExceeded              a call would exceed a budget, or a run's budget is exhausted
├── RunStopped                  a run was stopped, so that no further call of it is made
├── CallWaiting                 a call waits in a provider's batch, and its run does not
├── CallInBatch                 a call that was to be made is in a provider's batch already
├── StepReached                 a flow that is only followed up to a step has reached it
├── UnpaidCall                  a plan came to a call whose answer is not on record
├── GuardViolation              a call was about to break a guard; nothing was sent
└── CallError                   a call to a provider failed (what to do: `cascade/faults.py`)
    ├── RateLimited             429, with the seconds to wait when the server says
    ├── Overloaded              503, 529
    ├── ServerFault             500, 502, 504 and other faults on the provider's side
    ├── CallTimeout             no complete answer in time
    ├── Unreachable             refused, reset, DNS or TLS failure
    ├── CoolingDown             not sent: circuit open (repeated failures or Retry-After)
    ├── AuthenticationFailed    401, 403: the key is missing, wrong or not allowed
    ├── OutOfCredit             402, 429 and others: the account has no credit left
    ├── ModelGone               404, 410: the provider no longer serves this model
    ├── ContextTooLong          the prompt does not fit the model's window
    ├── ContentRefused          the provider's filter or the model itself refused
    ├── BadRequest              400, 409, 413, 422: this request will never work
    ├── BadReply                a 200 whose body is not a usable answer
    │   └── NoAnswer            the model's reply has no answer where one belongs
    ├── PagesUnavailable        the pages cannot be shown to a model that sees
    ├── FunctionFailed          a project's function raised, or gave no output in time
    ├── FunctionBusy            a project's function raised what passes by itself
    ├── PromptCut               the server counted far fewer tokens than were sent
    ├── UnreadableReply         reading a reply failed: a fault in tierwise
    └── BatchError              a provider's batch, or an item of it, failed
        ├── BatchRefused        no batches for this model, key or address
        ├── BatchTooLarge       more items or bytes than the provider takes at once
        ├── BatchQueueFull      the provider's limit of waiting tokens or batches
        ├── BatchLinesInvalid   validation failed for some items, which it names
        ├── BatchInvalid        validation failed, for all items
        ├── BatchFailed         the provider gave the batch up
        ├── BatchExpired        the provider's window ended before the answer
        ├── BatchCancelled      it was cancelled before the answer
        ├── BatchStalled        still not ended long after its window
        ├── BatchResultsGone    the batch or its results do not exist any more
        ├── BatchIncomplete     fewer results than the provider counts
        ├── BatchItemMissing    the results have nothing for this item
        └── BatchRenamed        refused for a parameter's name, which is mended now
"""

from __future__ import annotations

import copyreg
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

    from tierwise.records import Usage


class TierwiseError(Exception):
    """Base of all errors that tierwise raises on purpose; its text is meant for people."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy the error as it is, without a call of its class.

        So it crosses to another process, whatever arguments the class wants.
        """
        new: Any = copyreg.__newobj__  # type: ignore[attr-defined]
        return new, (type(self), *self.args), self.__dict__


class Misuse(TierwiseError):
    """The command or call was wrong; nothing was done."""


class ConfigError(Misuse):
    """A project file is wrong. The message reads `file:line: what is wrong; remedy`."""

    def __init__(
        self, message: str, *, path: Path | str | None = None, line: int | None = None
    ) -> None:
        self.path = path
        self.line = line
        self.message = message
        place = ""
        if line:
            place = f"{path}:{line}: "
        elif path:
            place = f"{path}: "
        super().__init__(place + message)


class DecidedMeanwhile(Misuse):
    """Another decision about the item was recorded after the person read it.

    `decisions` are those that the person has not seen, the first one first.
    """

    def __init__(self, message: str, decisions: tuple[Any, ...] = ()) -> None:
        self.decisions = decisions
        super().__init__(message)


class UnknownName(Misuse):
    """An unknown name; the message suggests the nearest one, or lists all."""

    def __init__(self, kind: str, name: str, names: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        super().__init__(unknown_name(kind, name, names))


def unknown_name(kind: str, name: str, names: Iterable[str]) -> str:
    """Return the sentence for an unknown name: the nearest name, or else all names."""
    all_names = sorted(names)
    nearest = get_close_matches(name, all_names, n=1)
    hint = f"known: {', '.join(all_names) or 'none'}"
    if nearest:
        hint = f"did you mean '{nearest[0]}'?"
    return f"no {kind} named '{name}'; {hint}"


class TryAgain(TierwiseError):
    """Raised by the function of a step: what failed passes by itself, so call it again.

    `retry_after` has the seconds until then, where they are known.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class DocumentError(TierwiseError):
    """A document cannot be read; the text is the reason that a person sees."""


class ModelUnavailable(TierwiseError):
    """A model cannot be used here; the text says what to set or start.

    `message` is the text without the model's name.
    """

    def __init__(self, message: str, *, model: str | None = None) -> None:
        self.model = model
        self.message = message
        super().__init__(f"{model}: {message}" if model else message)


class WeightsError(ModelUnavailable):
    """An embedded model's weights are missing, damaged or cannot be fetched."""


class LedgerError(TierwiseError):
    """The ledger cannot be opened, migrated or written."""


class LedgerAway(LedgerError):
    """The ledger's database does not answer, or is locked or full: a later try may succeed."""

    reading: bool = False  # whether it was to be read, not written


class BudgetExceeded(TierwiseError):
    """A call would exceed a budget, or its worst-case cost is unknown.

    `budget` is the ledger's name of the exhausted budget, and `left` the USD that it had left.
    """

    def __init__(
        self, message: str, *, budget: str | None = None, left: Decimal | None = None
    ) -> None:
        self.budget = budget
        self.left = left
        super().__init__(message)


class RunStopped(TierwiseError):
    """A run was stopped by a person or by the system; none of its calls is made any more."""


class CallWaiting(TierwiseError):
    """A call waits in a provider's batch, and its run does not wait for it."""

    def __init__(self, batch: str) -> None:
        self.batch = batch
        super().__init__(f"waits in batch {batch}")


class CallInBatch(TierwiseError):
    """A call that was to be made is in a provider's batch already: its answer comes with that."""

    def __init__(self, batch: str) -> None:
        self.batch = batch
        super().__init__(f"the call is in batch {batch} already")


class GuardViolation(TierwiseError):
    """A call was about to break a guard: a fault in tierwise, stopped before anything was sent."""


class CallError(TierwiseError):
    """A call to a provider failed.

    `model` names the catalog entry, and `message` is the text without that name. `usage` is what
    the provider reported with the failure, if any. `sent` is False where the request surely did not
    go out, so that the call cost nothing. `billable` says whether the answer may be charged; None
    where there was none, so that the kind of the error decides. `service_tier` is the one that the
    answer names, if any: `usage` is billed at its price.
    """

    def __init__(
        self,
        message: str,
        *,
        model: str,
        retry_after: float | None = None,
        usage: Usage | None = None,
        sent: bool = True,
        billable: bool | None = None,
    ) -> None:
        self.model = model
        self.message = message
        self.retry_after = retry_after
        self.usage = usage
        self.sent = sent
        self.billable = billable
        self.service_tier: str | None = None
        super().__init__(f"{model}: {message}")


class RateLimited(CallError):
    """429. `retry_after` holds the seconds to wait when the server said so."""


class Overloaded(CallError):
    """503 or 529: the provider has no capacity now."""


class ServerFault(CallError):
    """500, 502, 504, or another fault on the provider's side."""


class CallTimeout(CallError):
    """No complete answer within the model's timeout; it may have been billed."""


class Unreachable(CallError):
    """Connection refused or reset, or DNS or TLS failed."""


class CoolingDown(CallError):
    """Nothing was sent: the model's circuit is open, after repeated failures or a Retry-After.

    `retry_after` has the seconds until it closes, and `after` is the fault that opened it.
    """

    after: CallError | None = None


class AuthenticationFailed(CallError):
    """401 or 403: the key is missing, wrong or not allowed to use this model."""


class OutOfCredit(CallError):
    """The account has no credit left, or its spending limit is reached: a person must top up."""


class ModelGone(CallError):
    """404 or 410: the provider does not serve this model."""


class ContextTooLong(CallError):
    """The prompt does not fit the model's context window."""


class ContentRefused(CallError):
    """The provider's content filter, or the model itself, refused."""


class BadRequest(CallError):
    """400, 409, 413 or 422: repeating this request will not help."""

    # the parameter that the server refuses, where another name for it may help
    refused_parameter: str | None = None


class BadReply(CallError):
    """A 200 whose body is not a usable answer: not JSON, empty, or an error in disguise."""


class NoAnswer(BadReply):
    """A reply of nothing but thoughts, a tool call or other content.

    It is not asked for again: the same question gets the same reply, at the same price.
    """


class PagesUnavailable(CallError):
    """The document's pages cannot be shown to a model that sees: nothing was sent."""

    def __init__(self, message: str, *, model: str) -> None:
        super().__init__(message, model=model, sent=False)


class FunctionFailed(CallError):
    """A function of the project raised, took too long, or returned no output."""


class FunctionBusy(CallError):
    """A function of the project raised what it says passes by itself, such as TryAgain."""


class PromptCut(CallError):
    """The server cut the prompt, so that its answer is about another text."""


class UnreadableReply(CallError):
    """Reading a reply failed: a fault in tierwise. The reply may have been billed."""


class BatchError(CallError):
    """A provider's batch failed, or an item of it for a reason of the batch.

    The class decides, in `cascade/faults.py`. `provider_id` names the batch where there is one.
    """

    provider_id: str | None = None


class BatchRefused(BatchError):
    """The provider refused the upload or the batch: it has none for this model, key or address."""


class BatchTooLarge(BatchError):
    """The batch has more items or bytes than the provider takes at once."""


class BatchQueueFull(BatchError):
    """The provider's limit of tokens or batches that wait is reached: others must end first."""


class BatchLinesInvalid(BatchError):
    """The provider refused the whole batch for some of its items.

    `lines` has their places in the batch, from 1.
    """

    lines: tuple[int, ...] = ()


class BatchInvalid(BatchError):
    """The provider's validation refused the batch, without naming items."""


class BatchFailed(BatchError):
    """The provider gave the batch up, for a reason on its own side."""


class BatchExpired(BatchError):
    """The provider's window ended before the item was answered; nothing is charged for it."""


class BatchCancelled(BatchError):
    """The batch was cancelled before the item was answered; nothing is charged for it."""


class BatchStalled(BatchError):
    """The batch has not ended, long after the provider's window."""


class BatchResultsGone(BatchError):
    """The batch or its results do not exist (any more); they may have been paid."""


class BatchIncomplete(BatchError):
    """The results ended early: there are fewer than the provider counts."""


class BatchItemMissing(BatchError):
    """The batch has ended, and its results have nothing for the item."""


class BatchRenamed(BatchError):
    """The item was refused for the name of a parameter; the next one has the other name."""


def describe_exception(error: BaseException) -> str:
    """Return the class and place of an error from foreign code: `ValueError at steps.py:31`.

    Its text is left out, as it may quote a document or a key. The place is the innermost one
    outside of Python itself and installed packages.
    """
    import sysconfig
    from traceback import extract_tb

    foreign = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib"))
    own_frames = [
        frame
        for frame in extract_tb(error.__traceback__)
        if not frame.filename.startswith(foreign)
    ]
    description = type(error).__name__
    if own_frames:
        innermost = own_frames[-1]
        description += f" at {Path(innermost.filename).name}:{innermost.lineno}"
    return description
