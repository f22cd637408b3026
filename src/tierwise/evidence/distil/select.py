"""Which documents a teacher labels next, so that a classifier learns the most from few labels.

First documents near the centres of k-means clusters, one of each, which are unlike each other. Then
half of those of which the classifier is least sure, half drawn at random, so that what it is sure
of and wrong about is seen too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tierwise.records import Document, highest
from tierwise.text.hashing import hash_share
from tierwise.text.terms import vectorisers
from tierwise.text.vectors import Encoder

_DIMENSIONS = 64  # of terms, for clusters


def unlike_each_other(
    documents: Sequence[Document], size: int, encoder: Encoder | None = None
) -> list[Document]:
    """Return `size` documents, each the nearest to the centre of a cluster of its own.

    Clusters are of the embedder's vectors, or else of TF-IDF, reduced to its main directions.
    """
    if size >= len(documents):
        return list(documents)
    import numpy
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    ordered = sorted(documents, key=lambda document: (document.text, document.id))
    texts = [document.text for document in ordered]
    with threadpool_limits(1):
        if encoder is None:
            vectors = _of_terms(texts)
        else:
            sensitivity = highest(*(document.strictest for document in ordered))
            vectors = encoder.embed(texts, sensitivity=sensitivity)
        clusters = MiniBatchKMeans(
            n_clusters=size, random_state=0, n_init=1, batch_size=max(256, 3 * size)
        ).fit(vectors)
        distances = clusters.transform(vectors)
    chosen: dict[int, None] = {}
    for cluster in range(size):
        # the nearest that is not chosen yet: two centres may have the same one
        for place in numpy.argsort(distances[:, cluster], kind="stable").tolist():
            if place not in chosen:
                chosen[place] = None
                break
    return [ordered[place] for place in chosen]


def doubtful_and_random(
    documents: Sequence[Document], confidences: Sequence[float], size: int, salt: str
) -> list[Document]:
    """Return `size` documents: half the least sure ones, half drawn at random."""
    by_doubt = sorted(
        zip(documents, confidences, strict=True), key=lambda pair: (pair[1], pair[0].id)
    )
    doubtful = [document for document, _ in by_doubt[: (size + 1) // 2]]
    taken = {document.id for document in doubtful}
    rest = [document for document in documents if document.id not in taken]
    return [*doubtful, *at_random(rest, size - len(doubtful), salt)]


def at_random(documents: Sequence[Document], size: int, salt: str) -> list[Document]:
    """Return `size` documents, drawn by a hash of their texts."""
    drawn = sorted(
        documents, key=lambda document: (hash_share(salt, document.text), document.id)
    )
    return drawn[:size]


def _of_terms(texts: Sequence[str]) -> Any:
    from sklearn.decomposition import TruncatedSVD

    terms = vectorisers().fit_transform(texts)
    dimensions = min(_DIMENSIONS, terms.shape[0] - 1, terms.shape[1] - 1)
    return TruncatedSVD(max(1, dimensions), random_state=0).fit_transform(terms)
