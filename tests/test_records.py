"""The values that everything passes around."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tierwise.records import canonical_hash

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.decimals()
    | st.integers().map(lambda n: n / 1000)
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner)
    ),
)


@given(VALUES.filter(lambda value: "e" not in json.dumps(value, default=str)))
def test_a_hash_is_that_of_the_canonical_json_that_any_program_can_make(
    value: Any,
) -> None:
    """Sorted keys, no spaces, UTF-8; only numbers with an exponent may be written in more than one way."""
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str
    )
    assert (
        canonical_hash(value)
        == hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    )


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert canonical_hash(value) == canonical_hash(dict(reversed(value.items())))
