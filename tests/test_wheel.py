"""The wheel: what is in it; and, by `make wheel-test`, that a fresh environment with nothing else can work with it.

The latter installs everything twice, runs the real 0.5B model and types in the tutorial, so it takes some minutes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.kit.projects import ROOT
from tests.kit.standin import unused_address
from tests.kit.tutorial import typed_in

ENGINE = ROOT / "src/tierwise"
DOCS = ROOT / "docs"
slow = pytest.mark.skipif(
    "TIERWISE_WHEEL_TEST" not in os.environ, reason="make wheel-test runs it"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This repository's wheel, built without the network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(ROOT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_engine_the_starter_the_pages_and_nothing_else(
    wheel: Path,
) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "tierwise",
        "tierwise-0.1.0.dist-info",
    }
    package = {
        name.removeprefix("tierwise/") for name in names if name.startswith("tierwise/")
    }
    here = (
        path for path in ENGINE.rglob("*") if path.is_file() and path.suffix != ".pyc"
    )
    engine = {path.relative_to(ENGINE).as_posix() for path in here}
    pages = {f"pages/{path.relative_to(DOCS)}" for path in DOCS.rglob("*.md")}
    assert package == engine | pages
    assert {
        "gateway/learned/__init__.py",
        "starter/files/.gitignore",
        "starter/files/.github/workflows/ci.yml",
    } <= package


def test_the_pages_are_shown_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """Far from the repository, as in an environment with nothing but the wheel."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}

    def docs(*arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "tierwise", "docs", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True
        )
        return done.stdout

    listed = {line.split(" ")[0] for line in docs().splitlines()}
    for source in DOCS.rglob("*.md"):
        name = source.relative_to(DOCS).with_suffix("").as_posix()
        assert name in listed
    assert docs("tutorial") == (DOCS / "tutorial.md").read_text()
    assert docs("changelog") == (ROOT / "CHANGELOG.md").read_text()


def requirements(package: str) -> list[Requirement]:
    """The requirements of an installed package, in order, without those of its extras."""
    lines = [Requirement(line) for line in distribution(package).requires or ()]
    return [
        line
        for line in lines
        if line.marker is None or line.marker.evaluate({"extra": ""})
    ]


def test_a_limit_of_ours_is_the_first_that_pip_meets() -> None:
    """Else pip downloads the newest version, and each one below it until one fits the limit."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    ours = [Requirement(line) for line in pyproject["project"]["dependencies"]]
    names = [canonicalize_name(requirement.name) for requirement in ours]
    compared = []
    for place, requirement in enumerate(ours):
        for other in requirements(requirement.name):
            name = canonicalize_name(other.name)
            if name not in names:
                continue
            limit = ours[names.index(name)]
            bounds = [part.version for part in limit.specifier if part.operator == "<"]
            if any(other.specifier.contains(version) for version in bounds):
                compared.append(f"{requirement.name}: {name}")
                # pip looks for a version with each set of extras separately
                assert other.extras <= limit.extras, f"{requirement.name} needs {other}"
                assert names.index(name) < place, f"{limit} comes after {requirement}"
    assert {"alembic: sqlalchemy", "prefect: sqlalchemy"} <= set(compared)


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment in which nothing but the wheel was installed."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    subprocess.run([folder / "venv/bin/pip", "install", "-q", wheel], check=True)
    return folder


def typed(folder: Path, commands: str) -> str:
    """Type commands into a shell in which the environment is active; gives what they printed."""
    keep = ("HOME", "LANG", "TMPDIR", "SSL_CERT_FILE")
    env = {
        name: value
        for name, value in os.environ.items()
        if name in keep or name.startswith(("PIP_", "UV_"))
    }
    env["PATH"] = f"{folder / 'venv/bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@slow
@pytest.mark.timeout(1500)
def test_a_project_from_the_wheel_runs_its_demo_and_its_tests(fresh: Path) -> None:
    assert "# Tutorial" in typed(fresh, "tierwise docs tutorial")
    printed = typed(fresh, "tierwise init x && cd x && make demo && make test")
    assert "6 documents" in printed
    assert re.search(r"\d+ passed", printed)


@slow
@pytest.mark.timeout(2400)
def test_the_tutorial_works_as_it_stands(fresh: Path) -> None:
    """Typed in from top to bottom; only the port is another one, since 4200 may be taken here."""
    port = unused_address().rpartition(":")[2]
    commands = "\n".join(typed_in())
    commands = commands.replace("4200", port).replace(
        "tierwise up", f"tierwise up --port {port}"
    )
    try:
        printed = typed(fresh, commands)
    finally:
        typed(fresh, "cd post && tierwise down --now || true")
    assert "inbox/inbox" in printed
