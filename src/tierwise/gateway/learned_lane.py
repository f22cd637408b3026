"""The lane to trained classifiers in this process: nothing is sent, and nothing is paid."""

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
from tierwise.text.vectors import OpenEncoder

# classifiers in memory: after a training, a run may still ask the one before it
_KEPT = 2


class LearnedLane:
    """Answers to calls of learned models, whose files lie below a project's root.

    With an embedder on a server, the document's text is sent there, and nothing else is.
    """

    def __init__(self, root: Path, open_encoder: OpenEncoder) -> None:
        self._root = root
        self._open_encoder = open_encoder
        self._lock = threading.Lock()
        self._loaded: dict[str, Classifier] = {}  # by identity, the oldest first

    async def complete(self, call: Call, model: Model) -> Reply:
        """Return the label and its evidence as the JSON that the call's schema wants.

        Raises BadRequest, ModelUnavailable, and what an embedder raises.
        """
        return await asyncio.to_thread(self._answer, call, model)

    def _answer(self, call: Call, model: Model) -> Reply:
        form = _form(call, model)
        classifier = self._classifier(call.identity, model)
        _check_labels(form, classifier, model)
        text = call.messages[-1].content
        started = time.monotonic()
        [prediction] = classifier.predict([text], sensitivity=call.sensitivity)
        answer = {form.field: prediction.label}
        if form.evidence:
            answer["evidence"] = classifier.evidence(
                text,
                prediction.label,
                longest=form.evidence,
                sensitivity=call.sensitivity,
            )
        return Reply(
            text=json.dumps(answer, ensure_ascii=False),
            finish_reason="stop",
            usage=Usage(0, 0),
            latency_s=time.monotonic() - started,
            served_model=classifier.identity,
            confidence=prediction.confidence,
        )

    def _classifier(self, identity: str, model: Model) -> Classifier:
        """Return the classifier with this identity, loaded if it is still the one on disk."""
        with self._lock:
            if identity in self._loaded:
                return self._loaded[identity]
            encoders = [self._open_encoder(name) for name in model.embedder]
            try:
                classifier = load(trained_file(self._root, model.name), encoders)
            except ConfigError as error:
                raise ModelUnavailable(str(error), model=model.name) from None
            if classifier.identity != identity:
                raise BadRequest(
                    "it was trained again meanwhile; the next batch asks the new one",
                    model=model.name,
                )
            self._loaded[identity] = classifier
            for oldest in list(self._loaded)[:-_KEPT]:
                del self._loaded[oldest]
            return classifier


def _form(call: Call, model: Model) -> Form:
    if call.schema_name != model.learned:
        message = (
            f"it is trained for the step {model.learned}, not for {call.schema_name}"
        )
        raise BadRequest(message, model=model.name)
    try:
        return form_of(call.response_schema or {})
    except Misuse as error:
        raise BadRequest(str(error), model=model.name) from None


def _check_labels(form: Form, classifier: Classifier, model: Model) -> None:
    """Raise ModelUnavailable unless the classifier has the step's labels, and no others.

    Labels that training left out, for want of examples, are other models' to give.
    """
    expected = {*classifier.labels, *classifier.metadata.left_out}
    missing = sorted(set(form.labels) - expected)
    surplus = sorted(set(classifier.labels) - set(form.labels))
    faults = []
    if missing:
        faults.append(f"the step's {', '.join(missing)} it never learned")
    if surplus:
        faults.append(f"its {', '.join(surplus)} the step does not have")
    if faults:
        remedy = f"train it with the step's labels: `tierwise train {model.learned}`"
        raise ModelUnavailable(f"{'; '.join(faults)}; {remedy}", model=model.name)
