"""400 documents through two steps, and what happens meanwhile: each case ends with all of them done."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.oncall.bed import (
    DOCUMENTS,
    RIGHT_KEY,
    STEPS,
    Bed,
    make_bed,
    one_deployment,
    supplier,
    until,
)
from tests.oncall.surroundings import (
    PRIVATE_NAMES,
    SMALL_DISK,
    fill,
    name_server_address,
    postgresql,
    secret_block,
    set_secret_block,
    small_disk,
    with_name_server,
)
from tests.oncall.table import UNDISTURBED, Row, keep

pytestmark = [pytest.mark.oncall, pytest.mark.timeout(1200)]
CALLS = DOCUMENTS * STEPS


AFTER = 200  # answers before a fault begins: in the middle of the first step


def all_done(bed: Bed, case: str) -> Row:
    """Run the deployment until every document is delivered, by its first run or a later one."""
    with bed.up(one_deployment()):
        bed.start_deployment()
        bed.wait_until_done()
        return checked(bed, case)


def checked(bed: Bed, case: str) -> Row:
    """Keep the row of a case whose documents are all done, each call paid once."""
    row = bed.row(case)
    keep(row)
    assert row.done == DOCUMENTS
    assert row.paid_twice == 0
    assert row.paid == CALLS
    return row


def test_undisturbed(tmp_path: Path) -> None:
    with supplier(tmp_path) as provider:
        all_done(make_bed(tmp_path, provider), UNDISTURBED)


def test_one_429_with_retry_after_60(tmp_path: Path) -> None:
    with supplier(tmp_path) as provider:
        provider.order(fault="status", status=429, retry_after=60, after=AFTER, calls=1)
        all_done(make_bed(tmp_path, provider), "one 429, Retry-After 60")


def test_500s_for_two_minutes(tmp_path: Path) -> None:
    with supplier(tmp_path) as provider:
        provider.order(fault="status", status=500, after=AFTER, seconds=120)
        all_done(make_bed(tmp_path, provider), "500s for 2 minutes")


def test_429s_for_a_minute(tmp_path: Path) -> None:
    with supplier(tmp_path) as provider:
        provider.order(fault="status", status=429, after=AFTER, seconds=60)
        all_done(make_bed(tmp_path, provider), "429s for 1 minute")


def test_a_provider_that_hangs_for_a_minute(tmp_path: Path) -> None:
    """It takes every connection and never answers; the model's time-out is 15 s."""
    with supplier(tmp_path) as provider:
        provider.order(fault="hang", after=AFTER, seconds=60)
        bed = make_bed(tmp_path, provider, timeout_s=15)
        all_done(bed, "hangs for 1 minute")


def test_a_wrong_key_that_is_put_right(tmp_path: Path) -> None:
    """A person corrects the secret block after the first run; a later run does the rest."""
    with supplier(tmp_path, key=RIGHT_KEY) as provider:
        settings = f'secrets = {{ ONCALL_KEY = "{BLOCK}" }}'
        bed = make_bed(tmp_path, provider, key="", settings=settings)
        with bed.up(one_deployment(schedule=False)):
            block = secret_block(bed, BLOCK, "wrong-key")
            run = bed.start_deployment()
            until(lambda: bed.has_ended(run), 300, bed.story)
            refused = provider.arrived()
            assert bed.done() == set()
            set_secret_block(bed, block, RIGHT_KEY)
            bed.resume_schedule()
            bed.wait_until_done()
            bed.notes.append(f"{refused} calls refused; a person set the key")
            checked(bed, "wrong key, put right")


BLOCK = "oncall-key"


@pytest.mark.skipif(not PRIVATE_NAMES, reason="needs root and mount namespaces")
def test_dns_gone_for_a_minute(tmp_path: Path) -> None:
    """The services have a resolver of their own, which falls silent; each call resolves the name."""
    names_at = name_server_address()
    with supplier(tmp_path, names_at=names_at) as provider:
        provider.order(fault="no_names", after=AFTER, seconds=60)
        port = provider.url.rpartition(":")[2]
        bed = make_bed(tmp_path, provider, url=f"http://provider.oncall.test:{port}")
        bed.before = with_name_server(tmp_path, names_at)
        all_done(bed, "DNS gone for 1 minute")


def test_postgresql_stopped_for_ten_seconds(tmp_path: Path) -> None:
    with supplier(tmp_path) as provider, postgresql() as database:
        variables = {"TIERWISE_LEDGER_URL": database.url}
        bed = make_bed(tmp_path, provider, variables=variables)

        def outage() -> None:
            until(lambda: provider.billed() >= AFTER, 300, "calls are made")
            database.stop()
            time.sleep(10)
            database.start()

        thread = threading.Thread(target=outage)
        thread.start()
        all_done(bed, "PostgreSQL stopped for 10 s")
        thread.join()


@pytest.mark.skipif(not SMALL_DISK, reason="needs root, to mount a small disk")
def test_the_ledgers_disk_full_and_freed(tmp_path: Path) -> None:
    """Another program fills it for half a minute."""
    with supplier(tmp_path) as provider, small_disk(tmp_path / "disk") as disk:
        variables = {"TIERWISE_LEDGER_URL": f"sqlite:///{disk}/ledger.db"}
        bed = make_bed(tmp_path, provider, variables=variables)

        def outage() -> None:
            until(lambda: provider.billed() >= AFTER, 300, "calls are made")
            filler = fill(disk)
            time.sleep(30)
            filler.unlink()

        thread = threading.Thread(target=outage)
        thread.start()
        all_done(bed, "ledger's disk full for 30 s")
        thread.join()
