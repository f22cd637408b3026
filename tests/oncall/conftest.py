"""The bed runs with `make oncall-test` alone: its tests take minutes and start many processes."""

from __future__ import annotations

import os
import signal

from tests.oncall.table import ROWS

collect_ignore_glob = [] if ROWS in os.environ else ["test_*.py"]

# A shell starts what runs in the background with SIGINT ignored, and programs inherit that: a
# command would then rightly go on after the first SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
