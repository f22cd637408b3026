"""Small projects on disk for tests: a catalog that points to stand-ins, rules, and the real prompts."""

from __future__ import annotations

import shutil
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parent.parent.parent

MODEL = """
  {name}:
    tier: {tier}
    litellm_params: {{model: openai/{name}, api_base: "{url}/v1", api_key: test}}
    context_tokens: {context}
    max_output_tokens: 1000
    strength: {strength}
    timeout_s: 20
    price: {price}
"""
PRICE = "{input: 1, output: 2, source: test, date: 2026-11-01}"
RULES = """
version: 1
guards:
  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
routes:
  - {name: default, try: [small, large]}
"""


def model(
    name: str,
    url: str,
    *,
    tier: str = "local",
    strength: int = 10,
    price: str = PRICE,
    context: int = 8000,
) -> str:
    """A catalog entry for a model that a stand-in serves."""
    return MODEL.format(
        name=name, url=url, tier=tier, strength=strength, price=price, context=context
    )


def make_project(root: Path, *models: str, rules: str = RULES) -> Path:
    """A project with these catalog entries and rules, and this repository's prompts, tasks and flows."""
    (root / "routing_rules").mkdir(parents=True)
    head = dedent(
        """
        version: 1
        tiers:
          local: {description: here, stays_in_house: true}
          clarifai: {description: hosted}
          proprietary: {description: vendors}
        models:
        """
    )
    (root / "routing_rules" / "catalog.yaml").write_text(head + "".join(models))
    (root / "routing_rules" / "rules.yaml").write_text(dedent(rules))
    for folder in ("prompts", "tasks", "flows"):
        shutil.copytree(
            ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    return root
