"""Opens embedders, and says what one needs. An embedder is loaded once for each process."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tierwise.errors import ModelUnavailable
from tierwise.gateway.embedders import encoder_files
from tierwise.gateway.local.weights import OnSource, Progress
from tierwise.policy.addresses import canonical_address
from tierwise.policy.catalog import Catalog, called_as
from tierwise.policy.embedders import EmbedderEntry
from tierwise.records import Sensitivity, canonical_hash

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tierwise.policy.rules import Rules


class Embedder(Protocol):
    """Turns texts into vectors. Thread-safe."""

    @property
    def name(self) -> str:
        """The entry's name in the catalog."""

    @property
    def identity(self) -> str:
        """A hash of all that its vectors depend on."""

    @property
    def dimensions(self) -> int:
        """The length of a vector."""

    def embed(
        self, texts: Sequence[str], *, sensitivity: Sensitivity = "restricted"
    ) -> NDArray[Any]:
        """Return one row a text, as float32 of length 1; a text without words has a row of zeros.

        The same text gives the same row, whatever the other texts are. `sensitivity` is the highest
        of the texts. An embedder outside the house raises GuardViolation for confidential texts,
        before anything is sent, and whoever does not say takes them for restricted. Raises
        CallError when a server fails.
        """


_open: dict[str, Embedder] = {}  # by identity: two entries may be the same model
_lock = threading.Lock()


def open_embedder(
    catalog: Catalog,
    name: str,
    env: Mapping[str, str],
    *,
    rules: Rules | None = None,
) -> Embedder:
    """Return the embedder of a catalog entry.

    An embedder on this machine is loaded at the first call, which takes up to a second. `rules`
    add the project's own guards to a server's. Raises UnknownName, and ModelUnavailable when a
    variable is not set, or a file is missing, wrong or does not fit.
    """
    entry = catalog.embedder(name)
    missing = what_is_missing(catalog, entry, env)
    if missing is not None:
        raise ModelUnavailable(missing, model=name)
    identity = embedder_identity(entry, env)
    if not entry.is_embedded:
        from tierwise.gateway.embedders.server import ServerEmbedder

        return ServerEmbedder(catalog, entry, env, identity, rules)
    with _lock:
        if identity not in _open:
            from tierwise.gateway.embedders.encoder import load_encoder

            files = encoder_files.ready_files(entry, env)
            _open[identity] = load_encoder(entry, files, identity)
        return _open[identity]


def what_is_missing(
    catalog: Catalog, entry: EmbedderEntry, env: Mapping[str, str]
) -> str | None:
    """Return what to set, fetch or correct before an embedder can be used; None if nothing."""
    reason = catalog.embedder_unavailable(entry, env)
    if reason is not None or not entry.is_embedded:
        return reason
    return encoder_files.missing(entry, env)


def embedder_identity(entry: EmbedderEntry, env: Mapping[str, str]) -> str:
    """Return a hash of all that the vectors depend on. Loads nothing.

    For an embedder on this machine these are its files, pooling, prefix and window; for a server
    its address, model and parameters, without keys. Raises ModelUnavailable if that is not known
    here.
    """
    parts: list[object]
    if entry.is_embedded:
        parts = [encoder_files.file_hashes(entry, env), entry.pooling]
    else:
        server = called_as(entry)
        undisclosed = server.undisclosed_address(env)
        if undisclosed is not None:
            raise ModelUnavailable(undisclosed, model=entry.name)
        params = server.answer_params(env)
        params["api_base"] = canonical_address(params["api_base"])
        parts = [entry.tier, params]
    parts += [entry.prefix, entry.window_tokens, entry.dimensions]
    return f"embedder-{canonical_hash(parts)[:16]}"


def fetch_embedder(
    entry: EmbedderEntry,
    env: Mapping[str, str],
    progress: Progress | None = None,
    on_source: OnSource | None = None,
) -> None:
    """Download, verify and convert the files of an embedder that are not here yet.

    `progress` gets (bytes so far, total) of each download, and `on_source` each source that was
    tried, as with `fetch_weights`. Raises WeightsError.
    """
    encoder_files.fetch(entry, env, progress, on_source)


def is_converted(entry: EmbedderEntry, env: Mapping[str, str]) -> bool:
    """Return True if an embedder's files are in their final format, or need no other."""
    return encoder_files.is_converted(entry, env)
