"""The sensitivity of a document that is read: what it declares can raise it, never lower it."""

from __future__ import annotations

from collections.abc import Iterable

from tierwise.records import SENSITIVITIES, Sensitivity, highest


def raise_sensitivity(
    base: Sensitivity, declared: Iterable[str]
) -> tuple[Sensitivity, str]:
    """Return the strictest of `base` and the declared levels, and a note for a person.

    The note is empty unless a declared level is unknown; such a document is restricted.
    """
    words = [text.strip().casefold() for text in declared]
    unknown = [word for word in words if word and word not in SENSITIVITIES]
    if unknown:
        levels = ", ".join(SENSITIVITIES)
        note = f"'{unknown[0][:40]}' is not one of {levels}; taken as restricted"
        return "restricted", note
    declared_levels = [level for level in SENSITIVITIES if level in words]
    return highest(base, *declared_levels), ""
