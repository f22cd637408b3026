"""A project on disk: found from anywhere in it, read once, and every fault names its file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.projects import ROOT, make_project, model
from tierwise.errors import ConfigError, Misuse, UnknownName
from tierwise.project import Project

HERE = "http://127.0.0.1:9"
PROMPTS = [
    "actions",
    "category",
    "classify",
    "digest",
    "draft",
    "extract",
    "judge",
    "minutes",
    "notes",
    "receipt",
    "spending",
    "summarize",
]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(
        make_project(tmp_path / "project", model("small", HERE), model("large", HERE))
    )


def run(project: Path, code: str, **env: str) -> str:
    """What Python code prints in a process of its own whose current folder is the project."""
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **env}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- where it is --------------------------------------------------------------------------------


def test_a_project_is_found_from_a_folder_inside_it(project: Project) -> None:
    inside = project.root / "out" / "replies"
    inside.mkdir(parents=True)
    assert Project.find(inside).root == project.root
    assert Project.find(project.root).root == project.root


def test_the_nearest_project_is_taken(project: Project) -> None:
    inner = make_project(
        project.root / "nested", model("small", HERE), model("large", HERE)
    )
    assert Project.find(inner / "flows").root == inner


def test_no_project_is_a_misuse_that_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        Misuse,
        match=r"is in no tierwise project: no folder above it has a routing_rules/ folder",
    ):
        Project.find(tmp_path)


def test_a_file_called_routing_rules_makes_no_project(tmp_path: Path) -> None:
    (tmp_path / "routing_rules").write_text("no folder")
    with pytest.raises(Misuse):
        Project.find(tmp_path)


def test_the_current_folder_is_where_to_look_unless_a_variable_says_otherwise(
    project: Project, tmp_path: Path
) -> None:
    code = "from tierwise.project import Project; print(Project.find().root)"
    assert run(project.root / "flows", code) == str(project.root)
    assert run(tmp_path, code, TIERWISE_PROJECT=str(project.root / "tasks")) == str(
        project.root
    )


# ---- its files ----------------------------------------------------------------------------------


def test_a_project_reads_its_files_once(project: Project) -> None:
    assert set(project.catalog.models) == {"small", "large"}
    assert project.rules is project.rules
    assert project.catalog is project.catalog
    assert {prompt.name for prompt in project.prompts} == set(PROMPTS)


def test_rules_are_checked_against_the_catalog_and_the_prompts(
    project: Project,
) -> None:
    path = project.root / "routing_rules" / "rules.yaml"
    path.write_text(
        "version: 1\nroutes:\n  - {name: a, when: {step: clasify}, try: [small]}\n  - {name: b, try: [small]}"
    )
    with pytest.raises(
        ConfigError,
        match=r"rules\.yaml:3: no step named 'clasify'; did you mean 'classify'",
    ):
        _ = project.rules
    path.write_text("version: 1\nroutes:\n  - {name: b, try: [smal]}")
    with pytest.raises(
        ConfigError, match=r"rules\.yaml:3: no model named 'smal'; did you mean 'small'"
    ):
        _ = project.rules


@pytest.mark.parametrize("name", ["catalog", "rules"])
def test_a_file_that_is_missing_is_named(project: Project, name: str) -> None:
    (project.root / "routing_rules" / f"{name}.yaml").unlink()
    with pytest.raises(
        ConfigError, match=rf"routing_rules/{name}\.yaml: this file is missing"
    ):
        getattr(project, name)


def test_this_repositorys_own_project_loads() -> None:
    """Without any variable set, only what runs here could be available, and each other one says why."""
    policy = Project(ROOT).policy({})
    for name, entry in policy.catalog.models.items():
        assert entry.weights or entry.learned or policy.unavailable[name]


def test_a_policy_says_which_models_cannot_be_used_and_why(tmp_path: Path) -> None:
    far = model("small", "https://api.example.com")
    root = make_project(
        tmp_path / "p",
        far,
        model("large", HERE),
        model("far", "https://x.example", tier="clarifai"),
    )
    assert Project(root).policy({}).unavailable == {
        "small": "api.example.com is outside the house; list it under tiers.local.hosts if it is yours"
    }


def test_a_gguf_that_is_not_there_makes_its_model_unavailable(tmp_path: Path) -> None:
    own = model("small", HERE) + '    weights: {file: "${TIERWISE_GGUF}"}\n'
    project = Project(make_project(tmp_path / "p", own, model("large", HERE)))
    assert project.policy({}).unavailable == {"small": "set TIERWISE_GGUF"}
    missing = {"TIERWISE_GGUF": str(tmp_path / "none.gguf")}
    assert project.policy(missing).unavailable == {
        "small": f"there is no file {tmp_path}/none.gguf"
    }


# ---- its settings -------------------------------------------------------------------------------


def test_settings_come_from_pyproject_and_may_be_left_out(project: Project) -> None:
    assert Project(project.root).settings.ledger_url is None
    (project.root / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert Project(project.root).settings.ledger_url is None
    (project.root / "pyproject.toml").write_text(
        '[tool.tierwise]\nledger_url = "sqlite:///l.db"\n'
    )
    assert Project(project.root).ledger_url == "sqlite:///l.db"


def test_a_variable_wins_over_the_setting_for_the_ledger(project: Project) -> None:
    (project.root / "pyproject.toml").write_text(
        '[tool.tierwise]\nledger_url = "sqlite:///l.db"\n'
    )
    code = "from tierwise.project import Project; print(Project.find().ledger_url)"
    assert (
        run(project.root, code, TIERWISE_LEDGER_URL="sqlite:///other.db")
        == "sqlite:///other.db"
    )
    assert run(project.root, code, TIERWISE_LEDGER_URL="") == "sqlite:///l.db"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[project]\nname = "x"\n\n[tool.tierwise]\nledger = "x"\n',
            ":4: ledger: no setting named 'ledger'; did you",
        ),
        (
            "[tool.tierwise]\nledger_url = 5\n",
            ":1: ledger_url: Input should be a valid string (found 5)",
        ),
        ("[tool]\ntierwise = 5\n", ":1: expects settings"),
        ("tool = {\n", ": cannot be read: "),
    ],
)
def test_a_wrong_setting_names_the_file(
    project: Project, text: str, message: str
) -> None:
    (project.root / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        _ = project.settings
    assert str(caught.value).startswith(f"{project.root}/pyproject.toml{message}")


def test_settings_that_are_no_text_are_a_config_error(project: Project) -> None:
    (project.root / "pyproject.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"pyproject\.toml: cannot be read"):
        _ = project.settings


# ---- its flows ----------------------------------------------------------------------------------


def test_flows_are_listed_by_their_files(project: Project) -> None:
    (project.root / "flows" / "_helpers.py").write_text("")
    (project.root / "flows" / "notes.md").write_text("")
    assert project.flow_names() == [
        "contract_intake",
        "expense_report",
        "meeting_digest",
        "support_inbox",
    ]


def test_a_project_without_flows_has_none(tmp_path: Path) -> None:
    (tmp_path / "routing_rules").mkdir()
    assert Project(tmp_path).flow_names() == []


def test_an_unknown_flow_suggests_the_nearest(project: Project) -> None:
    with pytest.raises(
        UnknownName, match="no flow named 'suport-inbox'; did you mean 'support_inbox'"
    ):
        project.load_flow("suport-inbox")


LOAD = """
from tierwise.errors import ConfigError
from tierwise.project import Project
try:
    print(Project.find().load_flow("{name}"))
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "text", ["", "def empty():\n    'No flow.'\n", "empty = 5\n", "other = 1\n"]
)
def test_a_flow_file_without_its_flow_is_a_config_error(
    project: Project, text: str
) -> None:
    (project.root / "flows" / "empty.py").write_text(text)
    assert (
        run(project.root, LOAD.format(name="empty"))
        == "flows/empty.py: has no flow function named 'empty'"
    )


def test_a_flow_is_named_with_dashes_or_underscores(project: Project) -> None:
    (project.root / "flows" / "two_words.py").write_text(
        "class Flow:\n    fn = print\n    __repr__ = lambda self: 'the flow'\ntwo_words = Flow()\n"
    )
    for name in ("two_words", "two-words"):
        assert run(project.root, LOAD.format(name=name)) == "the flow"
