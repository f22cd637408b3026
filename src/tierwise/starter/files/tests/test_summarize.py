"""The step summarize, with a stand-in in place of the models."""

from __future__ import annotations

from tierwise.testing import StandIn

LETTER = "I would like eight bar stools in beech, seat at 65 cm. Could you have them ready by 1 July? Funmi Oyelaran"


def test_a_short_summary_in_the_documents_words_is_accepted() -> None:
    with StandIn({"summary": "She wants eight bar stools by 1 July."}) as models:
        [outcome] = models.ask("summarize", LETTER)
    assert outcome.status == "accepted", outcome.reason


def test_a_number_that_the_document_does_not_have_is_never_accepted() -> None:
    with StandIn({"summary": "She wants 12 bar stools by 1 July."}) as models:
        [outcome] = models.ask("summarize", LETTER)
    assert outcome.status == "deferred"
    assert "12" in outcome.reason
