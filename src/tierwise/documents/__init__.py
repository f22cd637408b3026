"""Documents in and out: files become batches of documents, batches become readable files.

reading      a folder or file becomes documents; sources finds the files
seen_files   files as a watched folder had them last, so that none is converted twice
done_folder  files move there once their documents are done
left_out     files that are not read: those of other programs, and earlier results
readers/     one format a module; add a document format there
sensitivity  a document can raise its own sensitivity, never lower it
redaction/   the only way to lower it: personal data is taken out and checked again
spool        documents between two steps, on disk
writing      results as JSON Lines and Markdown pages; page_names names the pages
places       folders by a name that stays

Nothing that a file holds can stop a run: a file that cannot be read becomes a document with empty
text and a deferred outcome of the step `read`, whose reason is its remedy.
"""

from __future__ import annotations

from tierwise.documents.left_out import LeftOut
from tierwise.documents.readers import ACCEPTED
from tierwise.documents.reading import (
    Origin,
    Shard,
    Watch,
    in_batches,
    iter_documents,
    iter_items,
    read_documents,
)
from tierwise.documents.seen_files import SeenFiles
from tierwise.documents.sources import file_of
from tierwise.documents.writing import write_documents

__all__ = [
    "ACCEPTED",
    "LeftOut",
    "Origin",
    "SeenFiles",
    "Shard",
    "Watch",
    "file_of",
    "in_batches",
    "iter_documents",
    "iter_items",
    "read_documents",
    "write_documents",
]
