"""The sentinel: a certificate is suspended where a server reports another model than the certified.

A server that reports nothing suspends nothing. One answer of another name among others that fit
does not either, since a load balancer may send one astray; two among the last 20 do, or one where
none fits. Canaries decide whether the new model takes the place of the old one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tierwise.policy.catalog import Catalog
from tierwise.policy.certificates import Certificate
from tierwise.policy.served_names import is_same_model, shown_name, with_releases

WINDOW = 20  # the last known answers of a model that are looked at
MOST_STRAY = 1  # of them, that may have another name

Key = tuple[str, tuple[str, ...]]  # step, models


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """An answer that was made, with the name that the server gave the model."""

    name: str
    at: float  # seconds since the epoch, UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryVerdict:
    """What golden items that were asked again showed of another served model."""

    step: str
    models: tuple[str, ...]
    evidence: str  # Certificate.evidence_hash
    model: str  # the one whose server reports another
    served: str
    asked: int
    lost: int  # wrong now, and right when it was certified
    gained: int
    is_restored: bool
    at: float


@dataclass(frozen=True, slots=True)
class Suspension:
    """A certificate that does not count, because a server reports another model."""

    certificate: Certificate
    model: str
    certified: str
    served: str
    verdict: CanaryVerdict | None = None  # of canaries that did not restore it

    @property
    def is_open(self) -> bool:
        """True while canaries may still restore it."""
        return self.verdict is None

    @property
    def change(self) -> str:
        """What happened, in words."""
        return (
            f"the server of {self.model} reports '{shown_name(self.served)}', "
            f"and '{shown_name(self.certified)}' was certified"
        )

    @property
    def reason(self) -> str:
        """What happened, and what decides, in words."""
        change = self.change
        certify = (
            f"`tierwise certify {self.certificate.step} --fresh` measures the new one"
        )
        if self.verdict is None:
            return f"suspended: {change}; `tierwise canaries` or {certify}"
        verdict = self.verdict
        return (
            f"{change}; of {verdict.asked} golden items asked again, {verdict.lost} are wrong "
            f"that were right and {verdict.gained} the other way round, which does not restore it; "
            f"{certify}"
        )


@dataclass(frozen=True, slots=True)
class Watch:
    """The suspended certificates, and the names of each watched model that suspend none."""

    suspended: Mapping[Key, Suspension]
    fitting: Mapping[str, frozenset[str]]


NOTHING_WATCHED = Watch({}, {})


def watch(
    certificates: Iterable[Certificate],
    catalog: Catalog,
    answers: Mapping[str, Sequence[ServedAnswer]],
    first_seen: Mapping[str, Sequence[ServedAnswer]],
    verdicts: Collection[CanaryVerdict],
) -> Watch:
    """Return the certificates that do not count, by step and models.

    `answers` are the last ones of each model, the oldest first. `first_seen` has each name that a
    model was served under with the time of its first answer.
    """
    found: dict[Key, Suspension] = {}
    fitting: dict[str, frozenset[str]] = {}
    for certificate in certificates:
        for model, certified in (certificate.served or {}).items():
            entry = catalog.models.get(model)
            if entry is None or not has_served_name(entry):
                continue
            key = (certificate.step, certificate.models)
            own = [
                verdict
                for verdict in verdicts
                if verdict.evidence == certificate.evidence_hash
                and verdict.model == model
            ]
            accepted = _accepted(certificate, certified, first_seen.get(model, ()), own)
            names = _recent(certificate, answers.get(model, ()))
            fits = frozenset(name for name in names if _fits(name, accepted))
            # what suspends one certificate of a model is looked at again for all
            fitting[model] = fitting.get(model, fits) & fits
            suspension = _suspension(certificate, model, accepted, names, own)
            if suspension is not None and key not in found:
                found[key] = suspension
    return Watch(found, fitting)


def has_served_name(model: object) -> bool:
    """Return True for a model whose server may report another one than before.

    The identity of weights and of trained classifiers is a hash of them already.
    """
    weights = getattr(model, "weights", None)
    learned = getattr(model, "learned", None)
    return weights is None and learned is None


def _accepted(
    certificate: Certificate,
    certified: tuple[str, ...],
    first_seen: Sequence[ServedAnswer],
    verdicts: Sequence[CanaryVerdict],
) -> tuple[str, ...]:
    """Return the names that a certificate is proof of: certified ones, and restored ones."""
    since = certificate.served_since or 0.0
    ordered = sorted(first_seen, key=lambda each: each.at)
    seen = [each.name for each in ordered if each.at > since]
    restored = tuple(verdict.served for verdict in verdicts if verdict.is_restored)
    return with_releases(certified, seen) + with_releases(restored, seen)


def _recent(certificate: Certificate, answers: Sequence[ServedAnswer]) -> list[str]:
    """Return the names of the last answers since a certificate was measured."""
    since = certificate.served_since or 0.0
    return [each.name for each in answers if each.at > since][-WINDOW:]


def _fits(name: str, accepted: Iterable[str]) -> bool:
    return any(is_same_model(name, each) for each in accepted)


def _suspension(
    certificate: Certificate,
    model: str,
    accepted: tuple[str, ...],
    names: Sequence[str],
    verdicts: Sequence[CanaryVerdict],
) -> Suspension | None:
    """Return the suspension that the names of the last answers call for; None if they fit."""
    others = [name for name in names if not _fits(name, accepted)]
    is_all = len(others) == len(names)
    if not others or (len(others) <= MOST_STRAY and not is_all):
        return None
    served = others[-1]
    refused = [
        verdict
        for verdict in verdicts
        if not verdict.is_restored and is_same_model(verdict.served, served)
    ]
    verdict = refused[-1] if refused else None
    return Suspension(certificate, model, accepted[0], served, verdict)
