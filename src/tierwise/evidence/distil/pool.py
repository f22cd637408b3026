"""The documents that a teacher may label: which are left out, and which are set aside.

Documents for certification are set aside before any label is known, by a hash of the text: what a
classifier learns from is chosen by its doubts, and what is left after such a choice would be easier
than the documents to come.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fractions import Fraction

from tierwise.policy.rules import Rules, features
from tierwise.records import Document
from tierwise.steps.step import Step
from tierwise.text.hashing import hash_share
from tierwise.text.terms import normalised
from tierwise.text.tokens import count_tokens

# of the documents, set aside for certification; another share would move documents between sides
SET_ASIDE = 0.4
_SALT = "agreement"


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The documents of a source on two sides, and the number of those left out by reason.

    Equal texts count once. `certify` is in random order, so that its first N are a uniform sample.
    """

    learn: tuple[Document, ...]
    certify: tuple[Document, ...]
    read: int = 0
    unreadable: int = 0
    repeated: int = 0
    labelled_by_people: int = 0  # in golden/
    withheld: int = 0  # by a guard
    withheld_because: str = ""  # of the first one


def pool_of(
    documents: Iterable[Document],
    *,
    step: Step,
    rules: Rules,
    tier: str,
    known_texts: Collection[str],
) -> Pool:
    """Return the documents that a teacher of this tier may label.

    `known_texts` are the normalised ones that people have labelled: models are certified on them.
    """
    learn: list[Document] = []
    certify: list[tuple[Fraction, Document]] = []
    seen: set[str] = set()
    read = 0
    unreadable = 0
    repeated = 0
    by_people = 0
    withheld = 0
    because = ""
    for document in documents:
        read += 1
        if document.stopped is not None:
            unreadable += 1
            continue
        refusal = _refusal(document, step, rules, tier)
        if refusal is not None:
            withheld += 1
            because = because or refusal
            continue
        text = normalised(document.text)
        if text in known_texts:
            by_people += 1
            continue
        if text in seen:
            repeated += 1
            continue
        seen.add(text)
        place = _place(text)
        if place < SET_ASIDE:
            certify.append((place, document))
        else:
            learn.append(document)
    certify.sort(key=lambda pair: (pair[0], pair[1].id))
    return Pool(
        learn=tuple(learn),
        certify=tuple(document for _, document in certify),
        read=read,
        unreadable=unreadable,
        repeated=repeated,
        labelled_by_people=by_people,
        withheld=withheld,
        withheld_because=because,
    )


def is_set_aside(text: str) -> bool:
    """Return True for a text that no classifier is taught by `distil`."""
    return _place(normalised(text)) < SET_ASIDE


def _place(text: str) -> Fraction:
    return hash_share(_SALT, text)


def _refusal(document: Document, step: Step, rules: Rules, tier: str) -> str | None:
    """Return why a guard keeps a document from a tier; None if it does not."""
    known = features(
        step,
        document,
        tokens=count_tokens(document.text),
        prompt_tokens=0,
        budget_used=0,
    )
    return rules.forbidden(tier, known)
