"""The shortest way to an answer: a trained classifier in this process. Nothing is sent, and nothing is paid."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path

from tierwise.errors import BadRequest, ConfigError, Misuse, ModelUnavailable
from tierwise.gateway.learned.classifier import Classifier
from tierwise.gateway.learned.files import load, trained_file
from tierwise.gateway.learned.form import Form, form_of
from tierwise.policy.catalog import Model
from tierwise.records import Call, Reply, Usage

_KEPT = 2  # classifiers in memory: a run may still ask the one from before a training


class LearnedLane:
    """Answers calls to learned models, whose files lie below a project's root."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._loaded: dict[str, Classifier] = {}  # by identity, the oldest first

    async def complete(self, call: Call, model: Model) -> Reply:
        """The label and its evidence as the JSON that the call's schema wants. Raises BadRequest, ModelUnavailable."""
        return await asyncio.to_thread(self._answer, call, model)

    def _answer(self, call: Call, model: Model) -> Reply:
        form = _form(call, model)
        classifier = self._classifier(call.identity, model)
        _check_labels(form, classifier, model)
        text = call.messages[-1].content
        begun = time.monotonic()
        [prediction] = classifier.predict([text])
        answer = {form.field: prediction.label}
        if form.evidence:
            answer["evidence"] = classifier.evidence(text, prediction.label, longest=form.evidence)
        return Reply(
            text=json.dumps(answer, ensure_ascii=False),
            finish_reason="stop",
            usage=Usage(0, 0),
            latency_s=time.monotonic() - begun,
            served_model=classifier.identity,
            confidence=prediction.confidence,
        )

    def _classifier(self, identity: str, model: Model) -> Classifier:
        """The classifier that a call means, which may be another than the one that lies on disk by now."""
        with self._lock:
            if identity not in self._loaded:
                try:
                    found = load(trained_file(self._root, model.name))
                except ConfigError as error:
                    raise ModelUnavailable(f"{model.name}: {error}") from None
                if found.identity != identity:
                    raise BadRequest(
                        "it was trained anew meanwhile; the next batch asks the new one",
                        model=model.name,
                    )
                self._loaded[identity] = found
                for oldest in list(self._loaded)[:-_KEPT]:
                    del self._loaded[oldest]
            return self._loaded[identity]


def _form(call: Call, model: Model) -> Form:
    if call.schema_name != model.learned:
        message = f"it is trained for the step {model.learned}, not for {call.schema_name}"
        raise BadRequest(message, model=model.name)
    try:
        return form_of(call.response_schema or {})
    except Misuse as error:
        raise BadRequest(str(error), model=model.name) from None


def _check_labels(form: Form, classifier: Classifier, model: Model) -> None:
    """Raises ModelUnavailable for a classifier that knows too little, or answers what is not allowed."""
    missing = sorted(set(form.labels) - set(classifier.labels))
    beyond = sorted(set(classifier.labels) - set(form.labels))
    if missing or beyond:
        parts = [f"the step's {', '.join(missing)} it never learned"] if missing else []
        parts += [f"its {', '.join(beyond)} the step does not have"] if beyond else []
        remedy = f"train it with the step's labels: `tierwise train {model.learned}`"
        raise ModelUnavailable(f"{model.name}: {'; '.join(parts)}; {remedy}")
