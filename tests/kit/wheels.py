"""Tiny wheels that the real pip downloads from a folder."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path


def pip_environment(wheels: Path) -> dict[str, str]:
    """This environment, in which pip looks into one folder and nowhere else."""
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith("PIP_")
    }
    return {
        **plain,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CONFIG_FILE": os.devnull,
    }


def write_wheel(
    folder: Path,
    number: int,
    members: Mapping[str, bytes],
    *,
    name: str = "tiny-weights",
) -> Path:
    """A wheel `tiny-weights-part<number>` 1.0 with these members."""
    package, version = f"{name}-part{number}".replace("-", "_"), "1.0"
    info = f"{package}-{version}.dist-info"
    path = folder / f"{package}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, data in members.items():
            wheel.writestr(f"{package}/{member}", data)
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}-part{number}\nVersion: {version}\n",
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path
