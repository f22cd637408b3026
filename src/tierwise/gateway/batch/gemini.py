"""Gemini's batches: a file of requests, an operation, and a file of responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import orjson

from tierwise import errors
from tierwise.errors import BadReply
from tierwise.gateway.batch.batch_faults import fault_of_validation
from tierwise.gateway.batch.batch_http import Answer, BatchHttp
from tierwise.gateway.batch.endings import fault_of_state, files_of
from tierwise.gateway.batch.formats import (
    FIND_MARGIN_S,
    MOST_PAGES,
    RawResult,
    as_time,
    by_server_clock,
    checked_id,
)
from tierwise.gateway.batch.lines import as_count, as_mapping, as_text, read_line
from tierwise.gateway.batch.values import BatchState, ProviderBatch
from tierwise.gateway.prepared import PreparedRequest

_MODELS = "/models/"
_NAME = "tierwise-"  # begins the name that we give to a batch, before our key
_STATES: Mapping[str, BatchState] = {
    "PENDING": "validating",
    "QUEUED": "validating",
    "RUNNING": "in_progress",
    "SUCCEEDED": "ended",
    "PARTIALLY_SUCCEEDED": "ended",
    "FAILED": "failed",
    "CANCELLING": "cancelling",
    "CANCELLED": "cancelled",
    "EXPIRED": "expired",
}
_CANCELLED = 1  # Google's code of an item that was not asked any more
# Items have Google's own codes, or a status.
_STATUS_OF_CODE: Mapping[int, int] = {
    _CANCELLED: 499,
    3: 400,
    4: 504,
    5: 404,
    7: 403,
    8: 429,
    9: 400,
    13: 500,
    14: 503,
    16: 401,
}


class GeminiBatches:
    """Gemini's format."""

    def base(self, url: str) -> str:
        """Return the address before the models, with the version."""
        return url.partition(_MODELS)[0]

    def line(self, custom_id: str, request: PreparedRequest) -> bytes:
        """Return a line of the file of requests."""
        head = orjson.dumps({"key": custom_id})
        return head[:-1] + b',"request":' + request.body + b"}\n"

    async def submit(
        self, http: BatchHttp, lines: Sequence[bytes], key: str
    ) -> ProviderBatch:
        """Upload the file in two requests, and make the batch."""
        file_name = await _upload(http, lines, key)
        model = http.call_url.partition(_MODELS)[2].partition(":")[0]
        wanted = {
            "batch": {
                "display_name": _NAME + key,
                "input_config": {"file_name": file_name},
            }
        }
        path = f"{_MODELS}{model}:batchGenerateContent"
        answer = await http.post("create", path, [orjson.dumps(wanted)])
        return _batch(answer, http.model)

    async def find(
        self,
        http: BatchHttp,
        key: str,
        since: float,
        ids: Collection[str],  # noqa: ARG002 - the key is enough
    ) -> ProviderBatch | None:
        """Look for our key in the names of the batches since then."""
        token = ""
        for _ in range(MOST_PAGES):
            answer = await http.get("list", f"/batches?pageSize=100{token}")
            begun = by_server_clock(since, answer.server_time) - FIND_MARGIN_S
            entries = answer.listed("operations")
            for entry in entries:
                if as_mapping(entry.get("metadata")).get("displayName") == _NAME + key:
                    return _batch(answer.part(entry), http.model)
            times = [
                as_time(as_mapping(entry.get("metadata")).get("createTime"))
                for entry in entries
            ]
            newest = max((each or begun for each in times), default=begun)
            following = as_text(answer.body.get("nextPageToken"))
            if not following or newest < begun:
                return None
            token = f"&pageToken={quote(following, safe='')}"
        return None

    async def status(self, http: BatchHttp, provider_id: str) -> ProviderBatch:
        """Return a batch."""
        answer = await http.get("status", _path(provider_id, http.model))
        return _batch(answer, http.model)

    async def results(
        self, http: BatchHttp, batch: ProviderBatch
    ) -> AsyncIterator[RawResult]:
        """Yield the lines of the file of responses."""
        files = await files_of(self, http, batch)
        root, version = _root(http)
        for name in files:
            path = f"{root}/download/{version}/{checked_id(name, http.model)}"
            async for line in http.lines(f"{path}:download?alt=media"):
                custom_id, value = read_line(line, "key")
                yield _result(custom_id, value, batch.state)

    async def cancel(self, http: BatchHttp, provider_id: str) -> ProviderBatch:
        """Ask for the end of a batch."""
        await http.post("cancel", _path(provider_id, http.model) + ":cancel")
        return await self.status(http, provider_id)

    async def delete(self, http: BatchHttp, batch: ProviderBatch) -> None:
        """Delete the files and the batch; without this, Google keeps files for two days."""
        answer = await http.get("status", _path(batch.id, http.model))
        metadata = as_mapping(answer.body.get("metadata"))
        given = as_mapping(metadata.get("inputConfig")).get("fileName")
        fresh = _batch(answer, http.model)
        own = (given, *fresh.files, fresh.id)
        for name in filter(None, own):
            with suppress(errors.BatchResultsGone, errors.ModelGone):
                await http.delete("delete", f"/{checked_id(name, http.model)}")


def _path(provider_id: str, model: str) -> str:
    name = checked_id(provider_id, model)
    return f"/{name}" if name.startswith("batches/") else f"/batches/{name}"


def _root(http: BatchHttp) -> tuple[str, str]:
    """Return the address without its version, and the version: `v1beta`."""
    root, _, version = http.base.rpartition("/")
    return root, version


async def _upload(http: BatchHttp, lines: Sequence[bytes], key: str) -> str:
    """Upload the requests of a batch, and return the file's name. Raises CallError."""
    root, version = _root(http)
    size = sum(map(len, lines))
    about = orjson.dumps({"file": {"display_name": _NAME + key}})
    begun = await http.post(
        "upload",
        f"{root}/upload/{version}/files",
        [about],
        {
            "x-goog-upload-protocol": "resumable",
            "x-goog-upload-command": "start",
            "x-goog-upload-header-content-length": str(size),
            "x-goog-upload-header-content-type": "application/jsonl",
        },
        allows_empty=True,
    )
    address = ""
    for name, value in begun.headers.items():
        if name.lower() == "x-goog-upload-url":
            address = value
    if not address:
        raise BadReply(
            "the batch API gives no address for the upload", model=http.model
        )
    sent = await http.post(
        "upload",
        address,
        lines,
        {
            "content-type": "application/jsonl",
            "x-goog-upload-offset": "0",
            "x-goog-upload-command": "upload, finalize",
        },
    )
    stored = as_mapping(sent.body.get("file"))
    return checked_id(stored.get("name"), http.model)


def _batch(answer: Answer, model: str) -> ProviderBatch:
    """Return the batch in an operation. Raises BadReply for what is none."""
    entry = answer.body
    provider_id = checked_id(entry.get("name"), model)
    metadata = as_mapping(entry.get("metadata"))
    word = as_text(metadata.get("state"))
    if not word:
        raise BadReply("the batch API's answer has no status", model=model)
    state = _STATES.get(word.partition("_STATE_")[2] or word, "in_progress")
    counts = as_mapping(metadata.get("batchStats"))
    name = as_text(metadata.get("displayName"))
    response = as_mapping(entry.get("response"))
    output = as_mapping(metadata.get("output"))
    files = {response.get("responsesFile"), output.get("responsesFile")}
    succeeded = as_count(counts.get("successfulRequestCount"))
    return ProviderBatch(
        id=provider_id,
        state=state,
        total=as_count(counts.get("requestCount")),
        succeeded=succeeded,
        failed=as_count(counts.get("failedRequestCount")),
        created_at=as_time(metadata.get("createTime")),
        ended_at=as_time(metadata.get("endTime")),
        key=name.removeprefix(_NAME) if name.startswith(_NAME) else None,
        fault=_fault(entry, state, model, provider_id),
        seen_at=answer.server_time,
        files=tuple(sorted(checked_id(each, model) for each in files if each)),
    )


def _fault(
    entry: Mapping[str, Any], state: BatchState, model: str, provider_id: str
) -> errors.BatchError | None:
    if state != "failed":
        return fault_of_state(state, model, provider_id)
    error = as_mapping(entry.get("error"))
    status = _status_of(error.get("code"))
    names = {400: ["invalid_argument"], 429: ["too_many_batches"]}.get(status, [])
    return fault_of_validation(names, [], 0, model, provider_id)


def _status_of(code: object) -> int:
    """Return the status of an error's code."""
    if isinstance(code, bool) or not isinstance(code, int):
        return 500
    if 300 <= code <= 599:
        return code
    return _STATUS_OF_CODE.get(code, 500)


def _result(
    custom_id: str | None, value: Mapping[str, Any] | None, state: BatchState
) -> RawResult:
    """Return the result in a line."""
    if value is None:
        return RawResult(custom_id)
    if value.get("response") is not None:
        return RawResult(custom_id, 200, orjson.dumps(value["response"]))
    error = as_mapping(value.get("error")) or as_mapping(value.get("status"))
    if not error:
        return RawResult(custom_id)
    code = error.get("code")
    if code == _CANCELLED and state == "expired":
        return RawResult(custom_id, fault=errors.BatchExpired)
    if code == _CANCELLED:
        return RawResult(custom_id, fault=errors.BatchCancelled)
    status = _status_of(code)
    return RawResult(custom_id, status, orjson.dumps({"error": error}))
