"""The JSON schemas by which editors check and complete a project's YAML files."""

from __future__ import annotations

import json
from pathlib import Path


def editor_schemas() -> dict[Path, str]:
    """Return the text of each schema file by its path in a project, for the installed version."""
    from tierwise.policy.catalog import catalog_schema
    from tierwise.policy.rules import rules_schema

    schemas = {
        Path("routing_rules/catalog.schema.json"): catalog_schema(),
        Path("routing_rules/rules.schema.json"): rules_schema(),
    }
    return {
        path: json.dumps(schema, indent=2) + "\n" for path, schema in schemas.items()
    }
