"""Calls as traces and metrics by OpenTelemetry's GenAI conventions: the only door to its SDK.

They are read from the ledger, so what is sent agrees with it, and no run waits for a collector.
Nothing that is sent has a word of a prompt, a document or an answer.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tierwise.desk.desk import Desk
from tierwise.errors import Misuse
from tierwise.ledger.views.overview import CallRow

log = logging.getLogger(__name__)
# OpenTelemetry's own variables: any of them turns it on.
ADDRESSES = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
_EVERY_S = 5.0
_AT_ONCE = 1000
_NS = 1_000_000_000


class _TraceOfRun:
    """Makes ids so that all calls of a run are in one trace."""

    def __init__(self) -> None:
        self.run_id = ""

    def generate_trace_id(self) -> int:
        """Return the run's trace."""
        return trace_id(self.run_id)

    def generate_span_id(self) -> int:
        """Return an id for a call; 0 would be none."""
        return random.getrandbits(64) or 1

    def is_trace_id_random(self) -> bool:
        """Return True: a hash is spread as evenly as a random number."""
        return True


class Telemetry:
    """Sends the calls that are recorded from now on."""

    def __init__(self, desk: Desk) -> None:
        """Raise Misuse where the SDK is not installed."""
        try:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import (
                OTLPMetricExporter,
            )
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
                OTLPSpanExporter,
            )
            from opentelemetry.sdk.metrics import MeterProvider
            from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise Misuse(
                "OTEL_EXPORTER_OTLP_ENDPOINT is set, and OpenTelemetry is not installed: "
                'pip install "tierwise[otel]", or unset the variable'
            ) from None
        self._desk = desk
        self._last = desk.ledger.overview.newest_call()
        self._ids = _TraceOfRun()
        ids: Any = self._ids
        resource = Resource.create({"service.name": "tierwise"})
        # Providers of our own: a flow's process may have global ones.
        self._traces = TracerProvider(resource=resource, id_generator=ids)
        self._traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._traces.get_tracer("tierwise")
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        self._metrics = MeterProvider([reader], resource=resource)
        meter = self._metrics.get_meter("tierwise")
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", unit="{token}", description="Tokens of a call."
        )
        self._durations = meter.create_histogram(
            "gen_ai.client.operation.duration", unit="s", description="Time of a call."
        )
        self._cost = meter.create_counter(
            "tierwise.cost", unit="USD", description="Cost of calls with a known cost."
        )

    def send_new(self) -> int:
        """Send the calls since the last look; return their number."""
        number = 0
        while True:
            calls = self._desk.ledger.overview.calls_after(self._last, _AT_ONCE)
            for call in calls:
                self._send(call)
                self._last = call.seq
            number += len(calls)
            if len(calls) < _AT_ONCE:
                return number

    def close(self) -> None:
        """Send what waits, and end."""
        self._traces.shutdown()
        self._metrics.shutdown()

    def _send(self, call: CallRow) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, Status, StatusCode

        labels = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": self._provider(call.model),
            "gen_ai.request.model": call.model,
        }
        if call.served_model is not None:
            labels["gen_ai.response.model"] = call.served_model
        if call.error is not None:
            labels["error.type"] = call.error
        self._ids.run_id = call.run_id
        span = self._tracer.start_span(
            f"chat {call.model}",
            # No parent, whatever this thread is in.
            context=Context(),
            kind=SpanKind.CLIENT,
            start_time=int(call.started_at * _NS),
            attributes={**labels, **_details(call)},
        )
        if call.error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(int((call.started_at + call.latency_s) * _NS))
        self._durations.record(call.latency_s, labels)
        if call.cost is not None:
            self._cost.add(float(call.cost), labels)
        kinds = {"input": call.prompt_tokens, "output": call.completion_tokens}
        for kind, tokens in kinds.items():
            if tokens is not None:
                self._tokens.record(tokens, {**labels, "gen_ai.token.type": kind})

    def _provider(self, model: str) -> str:
        """Return the provider as LiteLLM names it, such as `openai`."""
        entry = self._desk.project.catalog.models.get(model)
        params: Mapping[str, Any] = getattr(entry, "litellm_params", None) or {}
        provider, slash, _ = str(params.get("model", "")).partition("/")
        return provider if slash else "tierwise"


def trace_id(run_id: str) -> int:
    """Return the trace of a run: anyone who knows the run's id can find it."""
    digest = hashlib.sha256(run_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:16], "big") or 1


@contextmanager
def calls_sent(desk: Desk) -> Iterator[None]:
    """Send new calls while the block runs, where OpenTelemetry's variables name a collector."""
    if not any(os.environ.get(name) for name in ADDRESSES):
        yield
        return
    telemetry = Telemetry(desk)
    over = threading.Event()

    def look_now_and_then() -> None:
        while not over.wait(_EVERY_S):
            _look(telemetry)

    thread = threading.Thread(target=look_now_and_then, name="telemetry", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _look(telemetry)
        telemetry.close()


def _look(telemetry: Telemetry) -> None:
    try:
        telemetry.send_new()
    except Exception as error:  # noqa: BLE001 - the ledger or the collector may be away
        log.warning("calls could not be sent: %s", type(error).__name__)


def _details(call: CallRow) -> dict[str, Any]:
    """Return the rest of a span's attributes: those that would be too many for metrics."""
    details: dict[str, Any] = {
        "tierwise.run.id": call.run_id,
        "tierwise.step": call.step,
        "tierwise.tier": call.tier,
        "tierwise.attempt.kind": call.kind,
        "tierwise.document.hash": call.document_hash,
        "gen_ai.usage.input_tokens": call.prompt_tokens,
        "gen_ai.usage.output_tokens": call.completion_tokens,
    }
    if call.finish_reason is not None:
        details["gen_ai.response.finish_reasons"] = [call.finish_reason]
    if call.cost is not None:
        details["tierwise.cost_usd"] = float(call.cost)
    return {name: value for name, value in details.items() if value is not None}
