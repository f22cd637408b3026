"""The guard of embedders: a confidential text never leaves the house for a vector.

It does not depend on rules.yaml, so no project can be without it. The rules' own guards come on top.
"""

from __future__ import annotations

from tierwise.errors import GuardViolation
from tierwise.policy.catalog import Catalog
from tierwise.policy.embedders import EmbedderEntry
from tierwise.policy.rules import Features, Rules
from tierwise.records import Sensitivity, rank

# the first sensitivity that never leaves the house
_STAYS: Sensitivity = "confidential"


class TextGuard:
    """Decides which texts one embedder may see."""

    def __init__(
        self, catalog: Catalog, entry: EmbedderEntry, rules: Rules | None
    ) -> None:
        self._entry = entry
        self._in_house = catalog.keeps_in_house(entry)
        self._rules = rules

    def check(self, sensitivity: Sensitivity) -> None:
        """Raise GuardViolation if texts of this sensitivity may not go to the embedder."""
        name = self._entry.name
        if not self._in_house and rank(sensitivity) >= rank(_STAYS):
            raise GuardViolation(
                f"{name}: {sensitivity} texts are never sent out of the house to be embedded; "
                "name an embedder of an in-house tier"
            )
        if self._rules is None:
            return
        features = Features(step="", tokens=0, sensitivity=sensitivity)
        forbidden = self._rules.forbidden(self._entry.tier, features)
        if forbidden is not None:
            raise GuardViolation(f"{name}: {forbidden}")
