"""The measures of `tierwise.steps.correctness`, under the name that version 0.1 had for them."""

from tierwise.steps.correctness import *  # noqa: F403
