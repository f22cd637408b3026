"""What a run loads during other work never keeps its process alive."""

import subprocess
import sys

# Load something that never comes to an end, as behind a lock that nobody releases.
CODE = """
import threading
from tierwise.orchestrate import preload
preload.load_tokenizer = threading.Event().wait
preload._END_WITHIN_S = 0.1
preload.preload()
print("loading")
"""


def test_a_process_ends_though_something_is_never_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "loading\n", "")
