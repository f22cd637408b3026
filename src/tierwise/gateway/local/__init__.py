"""Models that run in the house, embedded: their weights, and llama.cpp's own server for them."""

from tierwise.gateway.local.server import Endpoint, LocalServers
from tierwise.gateway.local.weights import (
    Progress,
    cache_folder,
    fetch_weights,
    weights_path,
    weights_present,
)

__all__ = [
    "Endpoint",
    "LocalServers",
    "Progress",
    "cache_folder",
    "fetch_weights",
    "weights_path",
    "weights_present",
]
