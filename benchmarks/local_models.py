"""How fast the embedded models are here, and the price per million tokens that follows from a machine's price.

python -m benchmarks.local_models --usd-hour 0.08
"""

from __future__ import annotations

import argparse
import json
import os
import urllib.request
from statistics import median
from typing import Any

from tierwise.gateway.local import LocalServers, weights_present
from tierwise.project import Project

PARAGRAPH = (
    "On 2 October I ordered a standing desk in oak. My card statement shows the amount twice, both on the same day, "
    "three minutes apart. Please send the second payment back today and write to me when it is done. "
)


def ask(endpoint: Any, number: int) -> dict[str, Any]:
    """One request of about 250 prompt and 40 output tokens; gives the server's own timings."""
    prompt = f"Message {number}. {PARAGRAPH * 5} Retell it in your own words."
    messages = [{"role": "user", "content": prompt}]
    body = {
        "messages": messages,
        "max_tokens": 40,
        "temperature": 0,
        "cache_prompt": False,
    }
    request = urllib.request.Request(
        f"{endpoint.api_base}/chat/completions",
        json.dumps(body).encode(),
        {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {endpoint.api_key}",
        },
    )
    with urllib.request.urlopen(request, timeout=300) as reply:
        timings: dict[str, Any] = json.load(reply)["timings"]
    return timings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--usd-hour", type=float, default=0.08, help="what this machine costs an hour"
    )
    parser.add_argument("--requests", type=int, default=5)
    options = parser.parse_args()
    servers = LocalServers()
    print(
        "| model | prompt tokens/s | output tokens/s | USD per million prompt | USD per million output |"
    )
    print("|---|---|---|---|---|")
    for model in Project.find().catalog.models.values():
        if (
            not model.weights
            or model.examples
            or not weights_present(model.weights, os.environ)
        ):
            continue
        endpoint = servers.endpoint(model, os.environ)
        ask(endpoint, 0)
        timings = [ask(endpoint, number) for number in range(1, options.requests + 1)]
        speeds = [
            median(t[name] for t in timings)
            for name in ("prompt_per_second", "predicted_per_second")
        ]
        prices = [options.usd_hour / 3600 / speed * 1_000_000 for speed in speeds]
        print(
            f"| {model.name} | {speeds[0]:.0f} | {speeds[1]:.0f} | {prices[0]:.2f} | {prices[1]:.2f} |"
        )
    servers.close()


if __name__ == "__main__":
    main()
