"""Leases of concurrency slots for the Prefect server of `tierwise up`: they survive its restart.

Prefect keeps them in memory. After a restart of its server, a live run of a deployment with a
limit cannot renew its lease, and Prefect's own engine ends it. Here they are files. A lease that
could not be renewed, because the server was away or the machine was suspended, is given time.

Prefect loads this module by its setting PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE.
"""

from __future__ import annotations

import time
from datetime import timedelta
from uuid import UUID

from prefect.server.concurrency.lease_storage import filesystem

# As long as a lease of the ledger: then a process elsewhere counts as dead. Runs that are dead on
# this machine give their slot back at once, as `recovery` ends them.
_LEASE = timedelta(hours=1)
# From the server's start, or the machine's return, to the first lease that may be taken away. A
# client that waits for its server asks every few minutes.
_GRACE_S = 900.0
_ASKED_EVERY_S = 60.0  # Prefect asks for expired leases more often than that


class _Awake:
    """Since when the server has been at work without a break."""

    since: float | None = None
    last_asked: float = 0.0


class ConcurrencyLeaseStorage(filesystem.ConcurrencyLeaseStorage):
    """Leases as files, with time for their holders to come back."""

    async def renew_lease(self, lease_id: UUID, ttl: timedelta) -> bool:
        """Renew a lease, a deployment's for an hour; return False if it does not exist."""
        lease = await self.read_lease(lease_id)
        # Only the lease of a deployment's run is without a holder.
        if lease and lease.metadata and lease.metadata.holder is None:
            ttl = max(ttl, _LEASE)
        return await super().renew_lease(lease_id, ttl)

    async def read_expired_lease_ids(self, limit: int = 100) -> list[UUID]:
        """Return the expired leases; none while their holders may not have found the server."""
        if _is_too_early(time.time()):
            return []
        return await super().read_expired_lease_ids(limit)


def _is_too_early(now: float) -> bool:
    """Return True if the server has not been at work for long enough without a break."""
    if _Awake.since is None or now - _Awake.last_asked > _ASKED_EVERY_S:
        _Awake.since = now
    _Awake.last_asked = now
    return now - _Awake.since < _GRACE_S
