"""Mistral's batch jobs: files as OpenAI's, and jobs of one model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
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
from tierwise.gateway.batch.lines import as_count, as_mapping, as_text
from tierwise.gateway.batch.openai import delete_files, file_lines, upload_file
from tierwise.gateway.batch.values import BatchState, ProviderBatch
from tierwise.gateway.prepared import PreparedRequest

_COMPLETIONS = "/chat/completions"
_OUR_KEY = "tierwise_batch"
_PAGE = 100
_STATES: Mapping[str, BatchState] = {
    "queued": "validating",
    "running": "in_progress",
    "success": "ended",
    "failed": "failed",
    "timeout_exceeded": "expired",
    "cancellation_requested": "cancelling",
    "cancelled": "cancelled",
}


class MistralJobs:
    """Mistral's format."""

    def base(self, url: str) -> str:
        """Return the address without the path of chat completions."""
        return url.partition(_COMPLETIONS)[0]

    def line(self, custom_id: str, request: PreparedRequest) -> bytes:
        """Return a line of the file of requests."""
        head = orjson.dumps({"custom_id": custom_id})
        return head[:-1] + b',"body":' + request.body + b"}\n"

    async def submit(
        self, http: BatchHttp, lines: Sequence[bytes], key: str
    ) -> ProviderBatch:
        """Upload the file, and make the job."""
        file_id = await upload_file(http, lines, key)
        settings = http.resolved.model.batch
        hours = settings.window_hours if settings else 24
        wanted = {
            "input_files": [file_id],
            "model": orjson.loads(lines[0])["body"]["model"],
            "endpoint": "/v1" + _COMPLETIONS,
            "metadata": {_OUR_KEY: key},
            "timeout_hours": max(1, int(hours)),
        }
        answer = await http.post("create", "/batch/jobs", [orjson.dumps(wanted)])
        return _batch(answer, http.model)

    async def find(
        self,
        http: BatchHttp,
        key: str,
        since: float,
        ids: Collection[str],  # noqa: ARG002 - the key is enough
    ) -> ProviderBatch | None:
        """Look for our key in the metadata of the jobs since then."""
        for page in range(MOST_PAGES):
            path = f"/batch/jobs?page={page}&page_size={_PAGE}"
            answer = await http.get("list", path)
            entries = answer.listed("data")
            for entry in entries:
                if as_mapping(entry.get("metadata")).get(_OUR_KEY) == key:
                    return _batch(answer.part(entry), http.model)
            # By the server's clock, as ours may be wrong.
            begun = by_server_clock(since, answer.server_time) - FIND_MARGIN_S
            times = [as_time(entry.get("created_at")) or 0.0 for entry in entries]
            if len(entries) < _PAGE or max(times) < begun:
                return None
        return None

    async def status(self, http: BatchHttp, provider_id: str) -> ProviderBatch:
        """Return a job."""
        answer = await http.get("status", _path(provider_id, http.model))
        return _batch(answer, http.model)

    async def results(
        self, http: BatchHttp, batch: ProviderBatch
    ) -> AsyncIterator[RawResult]:
        """Yield the lines of the files of results and of errors."""
        files = await files_of(self, http, batch)
        async for result in file_lines(http, files):
            yield result

    async def cancel(self, http: BatchHttp, provider_id: str) -> ProviderBatch:
        """Ask for the end of a job."""
        path = _path(provider_id, http.model) + "/cancel"
        answer = await http.post("cancel", path)
        return _batch(answer, http.model)

    async def delete(self, http: BatchHttp, batch: ProviderBatch) -> None:
        """Delete the files of requests, results and errors."""
        answer = await http.get("status", _path(batch.id, http.model))
        inputs = answer.body.get("input_files")
        own = inputs if isinstance(inputs, list) else []
        outputs = [answer.body.get("output_file"), answer.body.get("error_file")]
        await delete_files(http, [*own, *outputs])


def _path(provider_id: str, model: str) -> str:
    return "/batch/jobs/" + quote(checked_id(provider_id, model), safe="")


def _batch(answer: Answer, model: str) -> ProviderBatch:
    """Return the job in an answer. Raises BadReply for what is none."""
    entry = answer.body
    provider_id = checked_id(entry.get("id"), model)
    word = as_text(entry.get("status")).lower()
    if not word:
        raise BadReply("the batch API's answer has no status", model=model)
    state = _STATES.get(word, "in_progress")
    total = as_count(entry.get("total_requests"))
    key = as_mapping(entry.get("metadata")).get(_OUR_KEY)
    files = [entry.get("output_file"), entry.get("error_file")]
    return ProviderBatch(
        id=provider_id,
        state=state,
        total=total,
        succeeded=as_count(entry.get("succeeded_requests")),
        failed=as_count(entry.get("failed_requests")),
        created_at=as_time(entry.get("created_at")),
        ended_at=as_time(entry.get("completed_at")),
        key=key if isinstance(key, str) else None,
        fault=_fault(entry, state, total, model, provider_id),
        seen_at=answer.server_time,
        files=tuple(checked_id(each, model) for each in files if each),
    )


def _fault(
    entry: Mapping[str, Any],
    state: BatchState,
    total: int,
    model: str,
    provider_id: str,
) -> errors.BatchError | None:
    if state != "failed":
        return fault_of_state(state, model, provider_id)
    listed = entry.get("errors")
    faults = listed if isinstance(listed, list) else []
    mappings = [each for each in faults if isinstance(each, Mapping)]
    codes = [as_text(each.get("code")) for each in mappings]
    lines = [as_count(each.get("line")) for each in mappings]
    known = [code for code in codes if code]
    if not known and mappings:
        # Mistral has a message only: something in the file was refused.
        known = ["invalid_requests"]
    return fault_of_validation(known, lines, total, model, provider_id)
