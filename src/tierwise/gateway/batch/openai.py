"""OpenAI's batches: a file of requests, a batch of it, and files of results.

Azure, Groq, Together and others have the same with small differences, see `docs/batches.md`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from tierwise import errors
from tierwise.errors import BadReply, CallError
from tierwise.gateway.batch.batch_faults import fault_of_validation
from tierwise.gateway.batch.batch_http import Answer, BatchHttp, multipart
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

_COMPLETIONS = "/chat/completions"
_OUR_KEY = "tierwise_batch"  # in the batch's metadata
_STATES: Mapping[str, BatchState] = {
    "validating": "validating",
    "queued": "validating",
    "pending": "validating",
    "in_progress": "in_progress",
    "running": "in_progress",
    "finalizing": "finalizing",
    "cancelling": "cancelling",
    "canceling": "cancelling",
    "completed": "ended",
    "failed": "failed",
    "expired": "expired",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}
# Errors of items that were never asked.
_UNANSWERED: Mapping[str, type[errors.BatchError]] = {
    "batch_expired": errors.BatchExpired,
    "batch_cancelled": errors.BatchCancelled,
    "batch_canceled": errors.BatchCancelled,
}
# The status that an item's error would have had online, where it has a code alone.
_STATUS_OF_CODE: Mapping[str, int] = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "invalid_request_error": 400,
    "invalid_request": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_denied": 403,
    "model_not_found": 404,
    "request_timeout": 408,
    "overloaded": 503,
}


class OpenAIBatches:
    """OpenAI's format."""

    # Where files are uploaded, and for what, as other servers may have it.
    _upload_path = "/files"
    _purpose = "batch"

    def base(self, url: str) -> str:
        """Return the address without the path of chat completions."""
        return url.partition(_COMPLETIONS)[0]

    def line(self, custom_id: str, request: PreparedRequest) -> bytes:
        """Return a line of the file of requests."""
        host = urlsplit(request.url).hostname or ""
        path = "/v1" + _COMPLETIONS
        if host.endswith(".azure.com"):
            path = _COMPLETIONS
        head = orjson.dumps({"custom_id": custom_id, "method": "POST", "url": path})
        return head[:-1] + b',"body":' + request.body + b"}\n"

    async def submit(
        self, http: BatchHttp, lines: Sequence[bytes], key: str
    ) -> ProviderBatch:
        """Upload the file, and make the batch."""
        file_id = await upload_file(
            http, lines, key, path=self._upload_path, purpose=self._purpose
        )
        settings = http.resolved.model.batch
        hours = settings.window_hours if settings else 24
        endpoint = orjson.loads(lines[0])["url"]
        wanted = {
            "input_file_id": file_id,
            "endpoint": endpoint,
            "completion_window": f"{hours:g}h",
            "metadata": {_OUR_KEY: key},
        }
        answer = await http.post("create", "/batches", [orjson.dumps(wanted)])
        return batch_of(answer, http.model)

    async def find(
        self,
        http: BatchHttp,
        key: str,
        since: float,
        ids: Collection[str],  # noqa: ARG002 - the key is enough
    ) -> ProviderBatch | None:
        """Look for our key in the metadata, or in the name of the file."""
        after = ""
        for _ in range(MOST_PAGES):
            answer = await http.get("list", f"/batches?limit=100{after}")
            entries = answer.listed("data")
            # By the server's clock, as ours may be wrong.
            begun = by_server_clock(since, answer.server_time) - FIND_MARGIN_S
            for entry in entries:
                created = as_time(entry.get("created_at"))
                is_older = created is not None and created < begun
                if not is_older and await self._is_ours(http, entry, key):
                    return batch_of(answer.part(entry), http.model)
            oldest = _oldest(entries)
            is_over = oldest is not None and oldest < begun
            if not entries or not answer.body.get("has_more") or is_over:
                return None
            last = checked_id(entries[-1].get("id"), http.model)
            after = f"&after={quote(last, safe='')}"
        return None

    async def _is_ours(
        self, http: BatchHttp, entry: Mapping[str, Any], key: str
    ) -> bool:
        own = as_mapping(entry.get("metadata")).get(_OUR_KEY)
        if own is not None:
            return bool(own == key)
        # Some servers keep no metadata.
        file_id = entry.get("input_file_id")
        if not file_id:
            return False
        with suppress(CallError):
            path = "/files/" + quote(checked_id(file_id, http.model), safe="")
            answer = await http.get("status", path)
            return answer.body.get("filename") == _file_name(key)
        return False

    async def status(self, http: BatchHttp, provider_id: str) -> ProviderBatch:
        """Return a batch."""
        answer = await http.get("status", _path(provider_id, http.model))
        return batch_of(answer, http.model)

    async def results(
        self, http: BatchHttp, batch: ProviderBatch
    ) -> AsyncIterator[RawResult]:
        """Yield the lines of the files of results and of errors."""
        files = await files_of(self, http, batch)
        async for result in file_lines(http, files):
            yield result

    async def cancel(self, http: BatchHttp, provider_id: str) -> ProviderBatch:
        """Ask for the end of a batch."""
        path = _path(provider_id, http.model) + "/cancel"
        answer = await http.post("cancel", path)
        return batch_of(answer, http.model)

    async def delete(self, http: BatchHttp, batch: ProviderBatch) -> None:
        """Delete the files of requests, results and errors."""
        answer = await http.get("status", _path(batch.id, http.model))
        entry = as_mapping(answer.body.get("job")) or answer.body
        names = ("input_file_id", "output_file_id", "error_file_id")
        await delete_files(http, [entry.get(name) for name in names])


class TogetherBatches(OpenAIBatches):
    """Together's format: another upload, no metadata, and a list without an object around it."""

    _upload_path = "/files/upload"
    _purpose = "batch-api"


async def upload_file(
    http: BatchHttp,
    lines: Sequence[bytes],
    key: str,
    *,
    path: str = "/files",
    purpose: str = "batch",
) -> str:
    """Upload the requests of a batch, and return the file's id. Raises CallError."""
    name = _file_name(key)
    fields = {"purpose": purpose}
    if path != "/files":
        fields["file_name"] = name
    content_type, form = multipart(fields, name, lines)
    headers = {"content-type": content_type}
    uploaded = await http.post("upload", path, form, headers)
    return checked_id(uploaded.body.get("id"), http.model)


async def file_lines(http: BatchHttp, files: Sequence[str]) -> AsyncIterator[RawResult]:
    """Yield the results in files."""
    for file_id in files:
        path = f"/files/{quote(checked_id(file_id, http.model), safe='')}/content"
        async for line in http.lines(path):
            custom_id, value = read_line(line, "custom_id")
            yield result_of(custom_id, value)


async def delete_files(http: BatchHttp, ids: Sequence[object]) -> None:
    """Delete files, those that are gone already too."""
    for file_id in ids:
        if file_id:
            path = "/files/" + quote(checked_id(file_id, http.model), safe="")
            with suppress(errors.BatchResultsGone, errors.ModelGone):
                await http.delete("delete", path)


def _file_name(key: str) -> str:
    return f"tierwise-{key}.jsonl"


def _path(provider_id: str, model: str) -> str:
    return "/batches/" + quote(checked_id(provider_id, model), safe="")


def _oldest(entries: Sequence[Mapping[str, Any]]) -> float | None:
    times = [as_time(entry.get("created_at")) for entry in entries]
    known = [each for each in times if each is not None]
    return min(known) if known else None


def batch_of(answer: Answer, model: str) -> ProviderBatch:
    """Return the batch in an answer. Raises BadReply for what is none."""
    entry = as_mapping(answer.body.get("job")) or answer.body  # Together
    provider_id = checked_id(entry.get("id"), model)
    word = as_text(entry.get("status")).lower()
    if not word:
        raise BadReply("the batch API's answer has no status", model=model)
    # A word that is not known is not the end.
    state = _STATES.get(word, "in_progress")
    counts = as_mapping(entry.get("request_counts"))
    total = as_count(counts.get("total"))
    names = ("output_file_id", "error_file_id")
    files = [entry.get(name) for name in names if entry.get(name)]
    words = ("completed", "failed", "expired", "cancelled", "finalized")
    ended = [f"{each}_at" for each in words]
    ended_at = next(filter(None, (as_time(entry.get(name)) for name in ended)), None)
    key = as_mapping(entry.get("metadata")).get(_OUR_KEY)
    return ProviderBatch(
        id=provider_id,
        state=state,
        total=total,
        succeeded=as_count(counts.get("completed")),
        failed=as_count(counts.get("failed")),
        created_at=as_time(entry.get("created_at")),
        ended_at=ended_at,
        expires_at=as_time(entry.get("expires_at") or entry.get("job_deadline")),
        key=key if isinstance(key, str) else None,
        fault=_fault(entry, state, total, model, provider_id),
        seen_at=answer.server_time,
        files=tuple(checked_id(each, model) for each in files),
    )


def _fault(
    entry: Mapping[str, Any],
    state: BatchState,
    total: int,
    model: str,
    provider_id: str,
) -> errors.BatchError | None:
    """Return why a batch has no results, or not all."""
    if state != "failed":
        return fault_of_state(state, model, provider_id)
    listed = as_mapping(entry.get("errors")).get("data")
    faults = listed if isinstance(listed, list) else []
    mappings = [each for each in faults if isinstance(each, Mapping)]
    codes = [as_text(each.get("code")) for each in mappings]
    lines = [as_count(each.get("line")) for each in mappings]
    known = [code for code in codes if code]
    return fault_of_validation(known, lines, total, model, provider_id)


def result_of(custom_id: str | None, value: Mapping[str, Any] | None) -> RawResult:
    """Return the result in a line."""
    if value is None:
        return RawResult(custom_id)
    response = value.get("response")
    if isinstance(response, Mapping):
        status = response.get("status_code", 200)
        is_status = type(status) is int and 100 <= status <= 599
        body = response.get("body")
        content = body.encode() if isinstance(body, str) else orjson.dumps(body)
        # "0" is OpenAI's for an item that failed on its side.
        return RawResult(custom_id, status if is_status else 500, content)
    error = value.get("error")
    if not error:
        return RawResult(custom_id)
    mapping = as_mapping(error)
    code = as_text(mapping.get("code")) or as_text(mapping.get("type"))
    unanswered = _UNANSWERED.get(code.lower())
    if unanswered is not None:
        return RawResult(custom_id, fault=unanswered)
    status = _STATUS_OF_CODE.get(code.lower(), 500)
    return RawResult(custom_id, status, orjson.dumps({"error": error}))
