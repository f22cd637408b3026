"""OpenRouter's batches: OpenAI's, with the requests in one body and the results in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress
from urllib.parse import quote

import orjson

from tierwise import errors
from tierwise.gateway.batch.batch_http import BatchHttp
from tierwise.gateway.batch.find_by_items import find_by_items
from tierwise.gateway.batch.formats import RawResult, checked_id
from tierwise.gateway.batch.lines import as_text, read_object
from tierwise.gateway.batch.openai import OpenAIBatches, batch_of, result_of
from tierwise.gateway.batch.values import ProviderBatch
from tierwise.gateway.prepared import PreparedRequest

_PATH = "/v1/chat/completions"
_MOST_PAGES_OF_RESULTS = 100_000


class OpenRouterBatches(OpenAIBatches):
    """OpenRouter's format. It keeps no key of ours, and cannot cancel."""

    def line(self, custom_id: str, request: PreparedRequest) -> bytes:
        """Return one of the requests in the body."""
        head = orjson.dumps({"custom_id": custom_id})
        return head[:-1] + b',"body":' + request.body + b"}"

    async def submit(
        self, http: BatchHttp, lines: Sequence[bytes], key: str
    ) -> ProviderBatch:
        """Make the batch."""
        model = orjson.loads(lines[0])["body"]["model"]
        # The server reads the endpoint and the model before it reads the requests.
        about = orjson.dumps({"endpoint": _PATH, "model": model})
        body = [about[:-1] + b',"requests":[']
        for line in lines:
            body += [line, b","]
        body[-1] = b"]}"
        # The same request again makes no second batch.
        once = {"idempotency-key": key}
        answer = await http.post("create", "/batches", body, once)
        return batch_of(answer, http.model)

    async def find(
        self,
        http: BatchHttp,
        key: str,  # noqa: ARG002 - there is no place for it
        since: float,
        ids: Collection[str],
    ) -> ProviderBatch | None:
        """Return the first batch since then of as many items, unless its results are of others."""
        return await find_by_items(
            http, "/batches", "after", batch_of, self.results, since, ids
        )

    async def results(
        self, http: BatchHttp, batch: ProviderBatch
    ) -> AsyncIterator[RawResult]:
        """Yield the rows of the pages of results."""
        own_id = quote(checked_id(batch.id, http.model), safe="")
        path = f"/batches/{own_id}/results"
        cursor = ""
        for _ in range(_MOST_PAGES_OF_RESULTS):
            answer = await http.get("results", path + cursor)
            for row in answer.listed("data"):
                yield result_of(read_object(row, "custom_id"), row)
            following = as_text(answer.body.get("next_cursor"))
            if not following:
                return
            cursor = f"?cursor={quote(following, safe='')}"

    async def cancel(self, http: BatchHttp, provider_id: str) -> ProviderBatch:
        """Return the batch as it is: OpenRouter has no cancellation, so it continues."""
        return await self.status(http, provider_id)

    async def delete(self, http: BatchHttp, batch: ProviderBatch) -> None:
        """Delete a batch with its requests and results."""
        own_id = quote(checked_id(batch.id, http.model), safe="")
        with suppress(errors.BatchResultsGone, errors.ModelGone):
            await http.delete("delete", f"/batches/{own_id}")
