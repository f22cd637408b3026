"""The batch lane in each provider's format: answers and costs as online, at half the price."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.batch_runs import answer, letters, micros, opened, two_steps
from tests.kit.batch_standin import BatchStandin, StandinPrice
from tests.kit.projects import make_project
from tests.kit.standin import Request

MODEL = """
  small:
    tier: clarifai
    litellm_params: {{model: {model}, api_base: "{url}", api_key: test}}
    context_tokens: 8000
    max_output_tokens: 1000
    strength: 10
    timeout_s: 20
    price: {{input: 2, output: 10, cached_input: 0.2, cache_write: 2.5,
             source: test, date: 2026-11-01}}
    batch: {{api: {api}, discount: 0.5}}
"""
RULES = "version: 1\nroutes: [{name: default, try: [small]}]\n"
PRICE = StandinPrice(input=2, output=10, cached=0.2, cache_write=2.5)
# LiteLLM's name, the path of the address, and the batch API.
FORMATS = {
    "openai": ("openai/small", "/v1"),
    "anthropic": ("anthropic/claude-haiku-5-5", ""),
    "mistral": ("mistral/mistral-small-2603", "/v1"),
    "gemini": ("gemini/gemini-2.5-flash-lite", "/v1beta"),
    "openrouter": ("openai/small", "/api/v1"),
}
every_format = pytest.mark.parametrize("api", list(FORMATS))


@pytest.fixture
def provider() -> Iterator[BatchStandin]:
    """The stand-in of batch APIs, whose servers cache system prompts."""
    with BatchStandin() as standin:
        standin.caches_prefixes = True
        for model, _ in FORMATS.values():
            standin.prices[model.partition("/")[2]] = PRICE
        standin.answer(answer)
        yield standin


def project_of(root: Path, provider: BatchStandin, api: str) -> Path:
    """A project with one model, which is asked in a format."""
    model, path = FORMATS[api]
    entry = MODEL.format(model=model, url=provider.url + path, api=api)
    root.mkdir()
    make_project(root, entry, rules=RULES)
    settings = '[tool.tierwise]\nbatch_linger = "12 s"\n'
    (root / "pyproject.toml").write_text(settings)
    return root


@every_format
def test_a_run_in_batches_answers_as_online_and_its_sum_is_the_invoice(
    api: str, provider: BatchStandin, tmp_path: Path
) -> None:
    """One answer is malformed at first: its repair joins a batch of its own."""

    def malformed_once(request: Request) -> str:
        words = json.dumps(request.body)
        if "number 1 of letter" not in words:
            return answer(request)
        if "That answer is not valid" not in words:
            return "no JSON"
        if "label" in ((request.schema or {}).get("properties") or {}):
            return json.dumps({"evidence": "The desk", "label": "billing"})
        return json.dumps({"summary": "The desk number 1 of letter has"})

    provider.answer(malformed_once)
    values = {}
    for transport in ("online", "batch"):
        root = project_of(tmp_path / transport, provider, api)
        provider._prefixes.clear()
        with opened(root) as engine:
            run = engine.start_run("letters", transport=transport)
            done = two_steps(engine, run, letters(4))
            engine.finish_run(run, "completed")
            values[transport] = [
                (document.value("classify"), document.value("summarize"))
                for document in done
            ]
            sent = list(engine.ledger.runs.attempts(run.id))
            kinds = Counter((attempt.kind, attempt.transport) for attempt in sent)
            assert kinds == {("first", transport): 8, ("repair", transport): 2}
            of_run = [
                line.micros
                for line in provider.invoice
                if (line.batch is not None) == (transport == "batch")
            ]
            assert micros(engine) == sum(of_run)
            assert engine.ledger.batches.open_batches() == []
    assert values["batch"] == values["online"]
    assert len(provider.batches) == 4
    assert set(provider.billed_items().values()) == {1}


@every_format
def test_another_process_collects_what_a_detached_run_sent(
    api: str, provider: BatchStandin, tmp_path: Path
) -> None:
    """It does not have the prompts, and needs none of them to read the answers."""
    root = project_of(tmp_path / "project", provider, api)
    run_id = None
    for _ in range(3):
        with opened(root) as engine:
            options: dict[str, Any] = {"transport": "batch", "detached": True}
            run = engine.start_run("letters", continues=run_id, **options)
            run_id = run.id
            done = two_steps(engine, run, letters(3))
            is_over = all("summarize" in each.outcomes for each in done)
            states = {
                outcome.status for each in done for outcome in each.outcomes.values()
            }
            engine.finish_run(
                run, "completed" if states == {"accepted"} else "detached"
            )
            provider.finish()
            paid = micros(engine)
            attempts = list(engine.ledger.runs.attempts(run_id))
    assert is_over
    assert states == {"accepted"}
    assert [attempt.error for attempt in attempts] == [None] * 6
    assert paid == sum(line.micros for line in provider.invoice)
    assert len(provider.batches) == 2
