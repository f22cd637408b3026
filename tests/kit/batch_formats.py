"""The paths of the stand-in for batch APIs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from aiohttp import web

from tests.kit.batch_answers import batch_cancelled, batch_status, routed
from tests.kit.batch_openai import (
    delete_batch,
    delete_file,
    file_content,
    file_entry,
    mistral_create,
    mistral_job,
    mistral_list,
    openai_batch,
    openai_create,
    openai_list,
    openrouter_results,
    upload_file,
)
from tests.kit.batch_others import (
    anthropic_batch,
    anthropic_create,
    anthropic_delete,
    anthropic_list,
    anthropic_results,
    gemini_batch,
    gemini_cancel,
    gemini_create,
    gemini_delete,
    gemini_list,
    gemini_upload,
)

if TYPE_CHECKING:
    from tests.kit.batch_standin import BatchStandin


async def respond(
    standin: BatchStandin, incoming: web.BaseRequest
) -> web.StreamResponse | None:
    """Answer a request to a batch API; None for a path that is none of theirs."""
    method = incoming.method
    path = unquote(incoming.path)
    query = {
        name: values[0] for name, values in parse_qs(incoming.query_string).items()
    }
    for pattern, handler in _ROUTES.get(method, ()):
        match = re.fullmatch(pattern, path)
        if match is not None:
            body = await incoming.read()
            return await handler(standin, incoming, body, query, *match.groups())
    return None


_ID = r"([\w.:-]+)"
_GEMINI_ID = r"(batches/[\w.-]+)"
_ROUTES: dict[str, list[tuple[str, Any]]] = {
    "POST": [
        (r"/upload/v1beta/files", gemini_upload),
        (r".*/v1beta/models/([\w.-]+):batchGenerateContent", gemini_create),
        (rf".*/v1beta/{_GEMINI_ID}:cancel", gemini_cancel),
        (r".*/messages/batches", anthropic_create),
        (
            rf".*/messages/batches/{_ID}/cancel",
            routed(batch_cancelled, anthropic_batch),
        ),
        (r".*/batch/jobs", mistral_create),
        (rf".*/batch/jobs/{_ID}/cancel", routed(batch_cancelled, mistral_job)),
        (r".*/files(?:/upload)?", upload_file),
        (rf".*/batches/{_ID}/cancel", routed(batch_cancelled, openai_batch)),
        (r".*/batches", openai_create),
    ],
    "GET": [
        (rf"/download/v1beta/files/{_ID}:download", file_content),
        (rf".*/v1beta/{_GEMINI_ID}", routed(batch_status, gemini_batch)),
        (r".*/v1beta/batches", gemini_list),
        (rf".*/messages/batches/{_ID}/results", anthropic_results),
        (rf".*/messages/batches/{_ID}", routed(batch_status, anthropic_batch)),
        (r".*/messages/batches", anthropic_list),
        (rf".*/batch/jobs/{_ID}", routed(batch_status, mistral_job)),
        (r".*/batch/jobs", mistral_list),
        (rf".*/files/{_ID}/content", file_content),
        (rf".*/files/{_ID}", file_entry),
        (rf".*/batches/{_ID}/results", openrouter_results),
        (rf".*/batches/{_ID}", routed(batch_status, openai_batch)),
        (r".*/batches", openai_list),
    ],
    "DELETE": [
        (rf".*/v1beta/{_GEMINI_ID}", gemini_delete),
        (rf".*/messages/batches/{_ID}", anthropic_delete),
        (rf".*/files/{_ID}", delete_file),
        (rf".*/batches/{_ID}", delete_batch),
    ],
}
