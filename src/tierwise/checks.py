"""The checks of `tierwise.steps.checks`, under the name that flows of version 0.1 import."""

from tierwise.steps.checks import *  # noqa: F403
