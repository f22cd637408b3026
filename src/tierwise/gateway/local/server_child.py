"""The process of one embedded model. Started by path, so that it imports nothing of tierwise.

It reads one line of JSON (the settings) from stdin, prints the server's address, and serves until
stdin ends: when the parent closes it, and also when the parent dies in whatever way.
"""

import json
import os
import signal
import sys
from typing import Any


def serve(settings: dict[str, Any]) -> None:
    """Serve one model until stdin ends. Raises RuntimeError when llama.cpp cannot load it."""
    import xllamacpp

    server = xllamacpp.Server(server_params(xllamacpp.CommonParams(), settings))
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)  # an orderly end would finish the requests under way first


def server_params(params: Any, settings: dict[str, Any]) -> Any:
    """Fill in llama.cpp's own parameters from our few settings."""
    params.model.path = settings["path"]
    params.n_parallel = settings["parallel"]
    # shared out evenly
    params.n_ctx = settings["context_tokens"] * settings["parallel"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any free one
    params.api_keys = [settings["api_key"]]
    # errors only: warnings quote pieces of requests, so of documents
    params.verbosity = 1
    params.cache_prompt = True
    # llama.cpp's own limit is 8 GiB
    params.cache_ram_mib = settings["prompt_cache_mib"]
    params.ui = False
    params.endpoint_slots = False
    return params


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        serve(json.loads(sys.stdin.readline()))
    except RuntimeError as error:
        sys.exit(str(error))
