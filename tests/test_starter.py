"""A project of one's own: `tierwise init`, `tierwise new step` and `tierwise new flow`, and that all of it works."""

from __future__ import annotations

import ast
import datetime
import json
import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest

import tierwise
from tests.kit.projects import ROOT
from tests.kit.terminal import Done, Terminal
from tests.kit.tutorial import shown, typed_in
from tierwise.lint.project import check_project
from tierwise.policy.catalog import load_catalog
from tierwise.project import Project
from tierwise.text.yaml import read_yaml

FLOWS = """
from pathlib import Path
from prefect.flows import load_flow_from_entrypoint
from tierwise.testing import StandIn
from tierwise.text.yaml import read_yaml
for deployment in read_yaml("prefect.yaml").data["deployments"]:
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    flow.validate_parameters(deployment["parameters"])
    with StandIn() as models:
        summary = flow(source=Path("examples/inbox"))
    print(deployment["name"], summary.run.documents, summary.run.deferred, len(models.requests))
"""


@pytest.fixture
def project(terminal: Terminal, tmp_path: Path) -> Path:
    """A project as `tierwise init` makes it."""
    done = terminal("init", "post", cwd=tmp_path)
    assert done.code == 0, done.err
    return tmp_path / "post"


def contents(root: Path) -> dict[str, bytes]:
    """All files of a folder."""
    files = (
        path
        for path in root.rglob("*")
        if path.is_file() and ".tierwise" not in path.parts
    )
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in files
        if "__pycache__" not in path.parts
    }


def python(
    root: Path, *arguments: str, server: str = ""
) -> subprocess.CompletedProcess[str]:
    """Python in a project, in a process of its own: its `flows` and `tasks` are not ours."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "TIERWISE_"))
    }
    if server:
        env["PREFECT_API_URL"] = server
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=root, env=env, capture_output=True, text=True, check=False
    )


def errors(root: Path) -> list[str]:
    """What `tierwise check` finds by looking at the files alone."""
    report = check_project(Project(root), {}, datetime.date(2026, 11, 23), flows=False)
    return [
        f"{finding.path.relative_to(root)}: {finding.message}"
        for finding in report.findings
        if finding.level == "error"
    ]


def test_init_tells_what_it_made_and_the_next_commands(
    terminal: Terminal, tmp_path: Path
) -> None:
    done = terminal("init", "post", cwd=tmp_path)
    made = contents(tmp_path / "post")
    assert {
        "flows/inbox.py",
        "tasks/classify.py",
        "prefect.yaml",
        ".gitignore",
        ".github/workflows/ci.yml",
    } <= set(made)
    assert all(Path(name).name in done.out for name in made if "schema" not in name)
    assert [line.split("#")[0].strip() for line in done.out.splitlines()[-3:]] == [
        "cd post",
        "make demo",
        "make test",
    ]


def test_a_project_has_the_name_of_its_folder_or_the_one_that_is_given(
    terminal: Terminal, tmp_path: Path
) -> None:
    terminal("init", "Our Post", cwd=tmp_path)
    terminal("init", "b", "--name", "incoming-mail", cwd=tmp_path)
    for folder, name in (("Our Post", "our-post"), ("b", "incoming-mail")):
        for file, line in (
            ("pyproject.toml", f'name = "{name}"'),
            ("prefect.yaml", f"name: {name}"),
        ):
            assert line in (tmp_path / folder / file).read_text().splitlines()
        assert not any(
            b"my-project" in text for text in contents(tmp_path / folder).values()
        )


def requirement(project: Path) -> str:
    """The project's requirement of tierwise."""
    data = tomllib.loads((project / "pyproject.toml").read_text())
    [line] = data["project"]["dependencies"]
    return str(line)


def test_a_project_asks_for_a_tierwise_that_others_can_install(
    project: Path, terminal: Terminal
) -> None:
    """This one was installed from its own folder, which is on this machine alone."""
    assert requirement(project) == f"tierwise~={tierwise.__version__}"
    done = terminal("init", "b", cwd=project.parent)
    assert f"This tierwise came from {ROOT.as_uri()}, which others do not" in done.out


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (
            {
                "url": "https://git.example/t.git",
                "vcs_info": {"vcs": "git", "commit_id": "ab12"},
            },
            "tierwise @ git+https://git.example/t.git@ab12",
        ),
        (
            {"url": "https://wheels.example/tierwise-0.1.0.whl", "archive_info": {}},
            "tierwise @ https://wheels.example/tierwise-0.1.0.whl",
        ),
        (
            {
                "url": "file:///home/me/t",
                "vcs_info": {"vcs": "git", "commit_id": "ab12"},
            },
            f"tierwise~={tierwise.__version__}",
        ),
        (
            {"url": "file:///home/me/tierwise-0.1.0.whl", "archive_info": {}},
            f"tierwise~={tierwise.__version__}",
        ),
        (None, f"tierwise~={tierwise.__version__}"),
    ],
)
def test_an_address_that_others_have_is_kept(
    terminal: Terminal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    origin: dict[str, Any] | None,
    expected: str,
) -> None:
    """As installers record it (PEP 610); an index leaves no such record."""
    installed = tmp_path / f"tierwise-{tierwise.__version__}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: tierwise\n")
    if origin:
        (installed / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(tmp_path)
    assert terminal("init", "post", cwd=tmp_path).code == 0
    assert requirement(tmp_path / "post") == expected


def make(
    project: Path, *arguments: str, python: str
) -> subprocess.CompletedProcess[str]:
    """Run `make` in a project; `python` is the python3 that it finds."""
    return subprocess.run(
        ["make", "--no-print-directory", *arguments, f"PYTHON={python}"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_uses_the_environment_that_has_tierwise(project: Path) -> None:
    done = make(project, "check", python=sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no errors" in done.stdout
    assert not (project / ".venv").exists()


def test_make_says_that_it_sets_up_an_environment(
    project: Path, tmp_path: Path
) -> None:
    """Where the Python that it finds has no tierwise; and it uses the one that it set up."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    python = str(bare / "bin/python")
    done = make(project, "-n", "check", python=python)
    assert "setting up .venv (1.2 GB, some minutes)" in done.stdout
    assert "uv pip install -q" not in done.stdout
    assert ".venv/bin/python -m tierwise check" in done.stdout
    (project / ".venv").mkdir()
    (project / ".venv/ready").touch()
    for has_tierwise in (python, sys.executable):
        done = make(project, "-n", "check", python=has_tierwise)
        assert done.stdout.strip() == ".venv/bin/python -m tierwise check"


@pytest.mark.parametrize("here", ["Makefile", "routing_rules/rules.yaml"])
def test_init_overwrites_nothing(terminal: Terminal, tmp_path: Path, here: str) -> None:
    """It names the file that is there and leaves the folder as it was."""
    (tmp_path / "post" / here).parent.mkdir(parents=True)
    (tmp_path / "post" / here).write_text("mine")
    done = terminal("init", "post", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert f"post/{here} is there already" in done.err
    assert contents(tmp_path / "post") == {here: b"mine"}


def test_a_folder_may_be_there_and_hold_other_things(
    terminal: Terminal, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert terminal("init", "empty", cwd=tmp_path).code == 0
    (tmp_path / "notes.txt").write_text("mine")
    assert terminal("init", ".", cwd=tmp_path).code == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a-file",), "a-file is a file"),
        (("a-file/post",), "cannot be written"),
        (("post", "--name", "Größe"), "no name for a project"),
        (("post", "--name", "tierwise"), "no name for a project"),
    ],
)
def test_what_init_cannot_do_is_one_line(
    terminal: Terminal, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "a-file").write_text("mine")
    done = terminal("init", *arguments, cwd=tmp_path)
    assert done.code in (1, 2)
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_a_new_project_has_no_fault(project: Path) -> None:
    assert errors(project) == []


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a step and a flow of its own."""
    terminal, folder = Terminal(), tmp_path_factory.mktemp("grown")
    for cwd, arguments in (
        (folder, ("init", "post")),
        (folder / "post", ("new", "step", "urgency")),
        (folder / "post", ("new", "flow", "night_post", "--step", "urgency")),
    ):
        done = terminal(*arguments, cwd=cwd)
        assert done.code == 0, done.err
    return folder / "post"


@pytest.mark.timeout(400)
def test_a_projects_tests_pass_as_they_come(grown: Path) -> None:
    """The starter's and those of a new step; the flows have a test of their own, since they need a server."""
    done = python(
        grown, "-m", "pytest", "-k", "not every_letter and not every_document"
    )
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout


@pytest.mark.timeout(400)
def test_a_projects_flows_run_and_their_deployments_load(
    prefect_server: str, grown: Path
) -> None:
    """Six letters through the two steps of the starter's flow, and through the one step of a new flow."""
    done = python(grown, "-c", FLOWS, server=prefect_server)
    assert done.stdout.splitlines() == ["inbox 6 0 12", "night-post 6 0 6"], done.stderr
    for name in ("inbox", "night_post"):
        assert len((grown / f"out/{name}/outcomes.jsonl").read_text().splitlines()) == 6


def test_the_starters_models_are_the_ones_of_this_repository() -> None:
    """A price or an address that changes here changes there."""
    ours = load_catalog(ROOT / "routing_rules/catalog.yaml").models
    starters = load_catalog(
        ROOT / "src/tierwise/starter/files/routing_rules/catalog.yaml"
    ).models
    assert {"qwen-0.5b", "ministral-3-3b", "gpt-mini"} <= set(starters)
    for name, model in starters.items():
        if name in ours:
            assert model.model_copy(update={"description": ""}) == ours[
                name
            ].model_copy(update={"description": ""})


def test_a_new_step_tells_what_it_made_and_how_to_use_it(
    terminal: Terminal, project: Path
) -> None:
    before = contents(project)
    done = terminal("new", "step", "urgency", cwd=project)
    added = set(contents(project)) - set(before)
    assert added == {
        "tasks/urgency.py",
        "prompts/urgency.md.j2",
        "golden/urgency.jsonl",
        "golden/urgency.yaml",
        "tests/test_urgency.py",
    }
    assert all(name in done.out for name in added)
    assert "tierwise new flow NAME --step urgency" in done.out
    assert "ExampleStep" not in "".join((project / name).read_text() for name in added)


def test_all_else_in_rules_and_deployments_stays_as_it_was(
    terminal: Terminal, project: Path
) -> None:
    """Comments and order included: one entry in one line, and some lines at the end."""
    rules, deployments = project / "routing_rules/rules.yaml", project / "prefect.yaml"
    before = rules.read_text(), deployments.read_text()
    terminal("new", "step", "urgency", cwd=project)
    terminal("new", "flow", "night_post", cwd=project)
    assert rules.read_text() == before[0].replace(
        "summarize: 0.80}", "summarize: 0.80, urgency: 0.9}"
    )
    assert deployments.read_text().startswith(before[1] + "\n  - name: night-post\n")


def test_a_new_flow_gives_the_step_the_parameters_of_its_golden_set(
    terminal: Terminal, project: Path
) -> None:
    """Whatever kinds of values they are; a step without any gets none."""
    (project / "golden/classify.yaml").write_text(
        'parameters: {labels: [a, "b\\"c"], deep: {x: true, y: null}, n: 2}'
    )
    (project / "golden/summarize.yaml").unlink()
    for name, step in (("first", "classify"), ("second", "summarize")):
        assert terminal("new", "flow", name, "--step", step, cwd=project).code == 0
    calls = {
        name: next(
            {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}  # type: ignore[attr-defined]
            for node in ast.walk(ast.parse((project / f"flows/{name}.py").read_text()))
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".map")
        )
        for name in ("first", "second")
    }
    assert calls["first"] == {
        "labels": ["a", 'b"c'],
        "deep": {"x": True, "y": None},
        "n": 2,
    }
    assert calls["second"] == {}


def test_floors_that_stand_otherwise_are_left_to_the_person(
    terminal: Terminal, project: Path
) -> None:
    rules = project / "routing_rules/rules.yaml"
    text = rules.read_text().replace(
        "{classify: 0.80, summarize: 0.80}",
        "\n  classify: 0.80  # sorting\n  summarize: 0.80",
    )
    rules.write_text(text)
    done = terminal("new", "step", "urgency", cwd=project)
    assert done.code == 0
    assert "urgency: 0.9" in done.err
    assert rules.read_text() == text


@pytest.mark.parametrize(
    "deployments",
    ["deployments: []\n", "deployments:\n  - {name: a}\nlast: 1\n", "name: x\n"],
)
def test_deployments_that_stand_otherwise_are_left_to_the_person(
    terminal: Terminal, project: Path, deployments: str
) -> None:
    """Nothing is written then, and what to write stands in the message."""
    (project / "prefect.yaml").write_text(deployments)
    before = contents(project)
    done = terminal("new", "flow", "night_post", cwd=project)
    assert done.code == 2
    assert "entrypoint: flows/night_post.py:night_post" in done.err
    assert contents(project) == before


def test_deployments_may_be_indented_otherwise(
    terminal: Terminal, project: Path
) -> None:
    (project / "prefect.yaml").write_text(
        "deployments:\n- name: a\n  entrypoint: flows/a.py:a\n"
    )
    assert terminal("new", "flow", "night_post", cwd=project).code == 0
    names = [
        found["name"]
        for found in read_yaml(project / "prefect.yaml").data["deployments"]
    ]
    assert names == ["a", "night-post"]


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("step", "Urgency", "is no name for a step"),
        ("step", "2nd", "is no name for a step"),
        ("step", "a-b", "is no name for a step"),
        ("step", "../x", "is no name for a step"),
        ("step", "class", "Python itself uses the name class"),
        ("step", "tasks", "tierwise itself uses the name tasks"),
        ("step", "redact", "tierwise itself uses the name redact"),
        ("step", "same", "the skeleton imports same from elsewhere"),
        ("step", "base_model", "the skeleton imports BaseModel from elsewhere"),
        ("step", "classify", "classify.jsonl is there already"),
        ("flow", "inbox", "flows/inbox.py is there already"),
        ("flow", "json", "would hide Python's own module json"),
        ("flow", "prefect", "would hide the installed package prefect"),
        ("flow", "tasks", "tierwise itself uses the name tasks"),
        ("flow", "classify", "classify is a step already"),
        ("flow", "flow", "the skeleton imports flow from elsewhere"),
    ],
)
def test_a_name_that_would_not_work_is_refused(
    terminal: Terminal, project: Path, kind: str, name: str, said: str
) -> None:
    before = contents(project)
    done = terminal("new", kind, name, cwd=project)
    assert (done.code, done.out) == (2, "")
    assert said in done.err.replace("step 'classify' is", "classify is")
    assert len(done.err.splitlines()) == 1
    assert contents(project) == before


def test_a_flow_of_a_step_that_does_not_exist_is_refused(
    terminal: Terminal, project: Path
) -> None:
    done = terminal("new", "flow", "night_post", "--step", "clasify", cwd=project)
    assert done.code == 2
    assert "did you mean 'classify'?" in done.err


def test_new_needs_a_project(terminal: Terminal, tmp_path: Path) -> None:
    done: Done = terminal("new", "step", "urgency", cwd=tmp_path)
    assert done.code == 2
    assert "is in no tierwise project" in done.err


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("flows/tasks.py", "hides tasks/ from the flows"),
        ("flows/json.py", "hides Python's own module json"),
        ("flows/httpx/__init__.py", "hides the installed package httpx"),
        ("prefect/__init__.py", "hides the installed package prefect"),
        ("statistics.py", "hides Python's own module statistics"),
    ],
)
def test_a_file_that_hides_an_installed_package_is_found(
    project: Path, file: str, said: str
) -> None:
    assert errors(project) == []
    (project / file).parent.mkdir(exist_ok=True)
    (project / file).write_text("")
    [found] = errors(project)
    assert said in found


@pytest.mark.parametrize("folder", ["flows", "tasks"])
def test_a_folder_that_an_installed_package_could_take_the_place_of_is_found(
    project: Path, folder: str
) -> None:
    (project / folder / "__init__.py").unlink()
    [found] = errors(project)
    assert found.startswith(f"{folder}/__init__.py: is missing")


def test_the_tutorials_project_comes_about_as_the_page_shows_it(tmp_path: Path) -> None:
    """Typed in, but for what needs a model or a server: `make wheel-test` types all of it."""
    quick = ("tierwise init", "cd", "tierwise new", "cat > ")
    parts = [
        part
        if part.startswith("cat > ")
        else "\n".join(line for line in part.splitlines() if line.startswith(quick))
        for part in typed_in()
    ]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", "-e", "-c", "\n".join(parts)]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for block in shown("text"):
        assert block in done.stdout
    [part] = shown("python")
    assert (
        textwrap.indent(part, " " * 4)
        in (tmp_path / "post/flows/triage.py").read_text()
    )
    assert errors(tmp_path / "post") == []
