"""The bed runs with `make oncall-test` alone: its tests take minutes and start many processes."""

from __future__ import annotations

import os

from tests.oncall.table import ROWS

collect_ignore_glob = [] if ROWS in os.environ else ["test_*.py"]
