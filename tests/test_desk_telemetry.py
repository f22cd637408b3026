"""Traces and metrics of calls, as a stand-in of an OpenTelemetry collector receives them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.kit.desk import desk_at
from tests.kit.ledgers import RUN
from tests.kit.projects import make_project, model
from tests.kit.reported_runs import LARGE, SMALL, record
from tierwise.desk.telemetry import calls_sent, trace_id

pytest.importorskip("opentelemetry.sdk")
SECRET = "Ada Lovelace, account DE89 3704"


class Collector(ThreadingHTTPServer):
    """Takes traces and metrics in OTLP over HTTP."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    def spans(self) -> list[Any]:
        """Return all spans."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        found = []
        for path, body in self.bodies:
            if path == "/v1/traces":
                request = ExportTraceServiceRequest.FromString(body)
                for resource in request.resource_spans:
                    for scope in resource.scope_spans:
                        found += scope.spans
        return found

    def metrics(self) -> dict[str, Any]:
        """Return the newest points of each metric."""
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
            ExportMetricsServiceRequest,
        )

        found = {}
        for path, body in self.bodies:
            if path == "/v1/metrics":
                request = ExportMetricsServiceRequest.FromString(body)
                for resource in request.resource_metrics:
                    for scope in resource.scope_metrics:
                        found.update({metric.name: metric for metric in scope.metrics})
        return found


class Handler(BaseHTTPRequestHandler):
    """Answers every request, and keeps its body."""

    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        self.server.bodies.append((self.path, body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("NO_PROXY", "*")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def attributes(span: Any) -> dict[str, Any]:
    """The attributes of a span as plain values."""
    found = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        if kind == "array_value":
            value = [entry.string_value for entry in value.values]
        found[each.key] = value
    return found


def test_new_calls_are_sent_by_the_genai_conventions(
    tmp_path: Path, collector: Collector
) -> None:
    models = (model(name, "http://127.0.0.1:1") for name in ("small", "large"))
    root = make_project(tmp_path / "project", *models)
    with desk_at(root) as desk:
        desk.ledger.start_run(RUN)
        record(desk.ledger, "before.txt", SMALL)
        with calls_sent(desk.app.state.desk):
            failed = {**SMALL, "usage": None, "cost": None, "error": "Timeout"}
            record(
                desk.ledger,
                "a.txt",
                {**SMALL, "served_model": "small-2026"},
                {**LARGE, "kind": "escalation", "error_text": SECRET},
                {**failed, "error_text": SECRET},
                {**SMALL, "reused": True, "cost": Decimal(0)},
                value={"name": SECRET},
                reason=SECRET,
            )
    spans = collector.spans()
    assert Counter(span.name for span in spans) == {"chat small": 2, "chat large": 1}
    assert {int.from_bytes(span.trace_id, "big") for span in spans} == {
        trace_id(RUN.id)
    }
    assert all(not span.parent_span_id for span in spans)
    found = [attributes(span) for span in spans]
    first = next(each for each in found if "gen_ai.response.model" in each)
    assert first["gen_ai.operation.name"] == "chat"
    assert first["gen_ai.provider.name"] == "openai"
    assert first["gen_ai.request.model"] == "small"
    assert first["gen_ai.response.model"] == "small-2026"
    assert first["gen_ai.response.finish_reasons"] == ["stop"]
    assert first["tierwise.run.id"] == RUN.id
    assert [each.get("error.type") for each in found].count("Timeout") == 1
    # The figures are the ledger's, without the call before and the reused one.
    new: list[dict[str, Any]] = [SMALL, LARGE]
    tokens = sum(each["usage"].prompt_tokens for each in new)
    assert sum(each.get("gen_ai.usage.input_tokens", 0) for each in found) == tokens
    cost = sum((each["cost"] for each in new), Decimal(0))
    sent = sum(each.get("tierwise.cost_usd", 0) for each in found)
    assert Decimal(str(round(sent, 9))) == cost
    metrics = collector.metrics()
    points = metrics["gen_ai.client.operation.duration"].histogram.data_points
    assert sum(point.count for point in points) == 3
    usage = metrics["gen_ai.client.token.usage"].histogram.data_points
    assert sum(point.sum for point in usage) == sum(
        each["usage"].prompt_tokens + each["usage"].completion_tokens for each in new
    )
    [*costs] = metrics["tierwise.cost"].sum.data_points
    total = sum(point.as_double for point in costs)
    assert Decimal(str(round(total, 9))) == cost
    assert all(SECRET.encode() not in body for _, body in collector.bodies)


def test_nothing_is_sent_without_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    root = make_project(tmp_path / "project", model("small", "http://127.0.0.1:1"))
    with desk_at(root) as desk, calls_sent(desk.app.state.desk):
        names = {thread.name for thread in threading.enumerate()}
        assert "telemetry" not in names
