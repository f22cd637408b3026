"""Documents in and out: a folder or file becomes batches, batches become readable files.

Nothing that a file holds can stop a run: what cannot be read becomes a document with empty text
and a deferred outcome of the step `read` that says what to do.
"""

from __future__ import annotations

from tierwise.documents.reading import Shard, in_batches, iter_documents, read_documents
from tierwise.documents.sources import ACCEPTED
from tierwise.documents.writing import write_documents

__all__ = ["ACCEPTED", "Shard", "in_batches", "iter_documents", "read_documents", "write_documents"]
