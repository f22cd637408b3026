"""Documents that wait on disk come back as they were, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierwise.documents.spool import Spool
from tierwise.errors import Misuse
from tierwise.records import SENSITIVITIES, Batch, Document, Outcome

json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=6,
)
outcomes = st.builds(
    Outcome,
    step=st.text(),
    status=st.sampled_from(["accepted", "deferred", "skipped"]),
    value=json_data,
    reason=st.text(),
    model=st.none() | st.text(),
    sensitivity=st.sampled_from(SENSITIVITIES),
)
documents = st.builds(
    Document,
    id=st.text(),
    text=st.text(),
    sensitivity=st.sampled_from(SENSITIVITIES),
    language=st.none() | st.text(),
    metadata=st.dictionaries(st.text(), st.text(), max_size=3),
    outcomes=st.lists(outcomes, max_size=3).map(
        lambda found: {o.step: o for o in found}
    ),
)


@given(st.lists(documents, max_size=4).map(tuple))
def test_documents_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, given: tuple[Document, ...]
) -> None:
    """Whatever their text holds; only attempts and routes stay in the ledger."""
    spool = Spool(tmp_path_factory.mktemp("spool"), "run")
    held = spool.put(Batch(given, first=7, total=40))
    assert held.load() == given
    assert (held.first, held.size, held.total) == (7, len(given), 40)
    spool.close()


def test_a_handle_keeps_no_document_in_memory(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run")
    held = spool.put(Batch((Document(id="a", text="x"),)))
    assert held.load() is not held.load()
    spool.close()


def test_the_files_are_gone_with_their_run(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run")
    held = spool.put(Batch((Document(id="a", text="x"),)))
    spool.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Misuse, match="this run is over"):
        held.load()


def test_nobody_else_can_look_into_the_folder(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run")
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    spool.close()


def test_what_a_killed_run_left_goes_with_the_next_one_and_what_lives_stays(
    tmp_path: Path,
) -> None:
    """The lock of a dead process is free; that of a living one is not."""
    code = (
        "import sys, time; from pathlib import Path; from tierwise.documents.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), 'killed'); print('ready', flush=True); time.sleep(60)"
    )
    living = Spool(tmp_path, "living")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        os.kill(child.pid, signal.SIGKILL)
    assert (tmp_path / "killed").exists()
    next_one = Spool(tmp_path, "next")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["living", "next"]
    for spool in (living, next_one):
        spool.close()
