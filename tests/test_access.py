"""Who gets at a project's Prefect server: its owner with the password, and no one else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kit.sorting import sorting_project, tierwise
from tests.kit.standin import Request, Standin
from tierwise.errors import ConfigError
from tierwise.orchestrate.api_password import (
    Access,
    access,
    ensure_password,
    password_file,
    prepare_password,
    read_password,
    server_environment,
    use_server,
)

# A second user of the machine, who is in none of the owner's groups.
SECOND_USER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
CAN_BE_SECOND = (
    shutil.which("setpriv") is not None and hasattr(os, "geteuid") and os.geteuid() == 0
)
AS_FLOW = """
import os
from pathlib import Path
Path("address").write_text(os.environ["PREFECT_API_URL"])
Path("password").write_text(os.environ["PREFECT_API_AUTH_STRING"])
"""
# Prefect writes such a file with the first `prefect config set`; the active profile has no address.
PROFILES = """
active = "mine"
[profiles.mine]
PREFECT_LOGGING_LEVEL = "ERROR"
[profiles.local]
PREFECT_API_URL = "http://127.0.0.1:9/api"
"""


@pytest.mark.parametrize("profiles", [None, PROFILES], ids=["plain", "profiles"])
def test_the_server_of_a_run_answers_nobody_without_its_password(
    tmp_path: Path, standin: Standin, profiles: str | None
) -> None:
    """Also where a file names a server that is not used."""
    root = sorting_project(tmp_path / "p", standin)
    home = tmp_path / "home"
    (home / ".prefect").mkdir(parents=True)
    if profiles:
        (home / ".prefect" / "profiles.toml").write_text(profiles)
    flow = root / "flows" / "sort.py"
    flow.write_text(flow.read_text() + AS_FLOW)
    seen: list[int] = []
    answers: list[Access | None] = []

    def answered(_: Request) -> str:
        address = (root / "address").read_text()
        password = (root / "password").read_text()
        for token in ("", "Basic", "Basic dGllcndpc2U6", "Bearer x"):
            headers = {"Authorization": token} if token else {}
            for path in ("flow_runs/filter", "block_documents/filter"):
                reply = httpx.post(f"{address}/{path}", json={}, headers=headers)
                seen.append(reply.status_code)
        answers.append(access(address, password))
        return json.dumps({"label": "delivery", "evidence": "has not arrived"})

    standin.answer(answered)
    done = tierwise(root, "run", "sort", HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert "1 by small" in done.stdout
    assert set(seen) == {401}
    assert answers == [Access.GRANTED]
    password = (root / "password").read_text()
    (root / "password").unlink()
    assert files_with(root, password) == []


def files_with(folder: Path, text: str) -> list[Path]:
    """The files below a folder in which a text is written, with or without its first part."""
    secret = text.rpartition(":")[2].encode()
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and secret in path.read_bytes()
    ]


def test_a_password_is_made_once_and_no_other_user_can_read_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    first = ensure_password(tmp_path)
    assert ensure_password(tmp_path) == first == read_password(tmp_path)
    assert password_file(tmp_path).stat().st_mode & 0o777 == 0o600
    assert password_file(tmp_path).parent.stat().st_mode & 0o777 == 0o700
    assert len(first) > 40
    password_file(tmp_path).write_text("me:chosen\n")
    assert ensure_password(tmp_path) == "me:chosen"
    if CAN_BE_SECOND:
        read = [*SECOND_USER, "cat", str(password_file(tmp_path))]
        done = subprocess.run(read, capture_output=True, text=True)
        assert done.returncode != 0
        assert "chosen" not in done.stdout


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """The variables of a process that has not imported Prefect, and those alone."""
    for name in list(os.environ):
        if name.startswith("PREFECT_"):
            monkeypatch.delenv(name)
    # Taken away again by monkeypatch.
    for name in ("API_AUTH_STRING", "SERVER_API_AUTH_STRING", "API_URL"):
        monkeypatch.setenv(f"PREFECT_{name}", "")
        monkeypatch.delenv(f"PREFECT_{name}")
    monkeypatch.setenv("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", "https://given.example")
    monkeypatch.delitem(sys.modules, "prefect.context", raising=False)
    return os.environ


@pytest.mark.parametrize(
    ("address", "ours"),
    [
        (None, True),
        ("http://127.0.0.1:4777/api", True),
        ("http://localhost:4777/api/", True),
        ("http://127.0.0.1:4778/api", False),
        ("https://127.0.0.1:4777/api", False),
        ("http://prefect.example:4777/api", False),
        ("https://api.prefect.cloud/api/accounts/a/workspaces/w", False),
    ],
)
def test_only_the_projects_own_server_gets_its_password(
    tmp_path: Path, environment: Mapping[str, str], address: str | None, ours: bool
) -> None:
    """Another server keeps the one that is set for it."""
    password = ensure_password(tmp_path)
    os.environ["PREFECT_API_AUTH_STRING"] = "of:another"
    if address:
        os.environ["PREFECT_API_URL"] = address
    prepare_password(tmp_path, "http://127.0.0.1:4777")
    expected = password if ours else "of:another"
    assert environment["PREFECT_API_AUTH_STRING"] == expected


def test_a_server_allows_its_own_pages_or_those_that_were_named(
    tmp_path: Path, environment: Mapping[str, str]
) -> None:
    name = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"
    url = "http://127.0.0.1:4777"
    assert server_environment(tmp_path, url)[name] == "https://given.example"
    del os.environ[name]
    prepare_password(tmp_path, None)
    assert environment[name] == "https://no-page.invalid"
    own = "http://127.0.0.1:4777,http://localhost:4777"
    assert server_environment(tmp_path, url)[name] == own


def test_a_shell_gets_the_server_and_its_password(
    tmp_path: Path, environment: Mapping[str, str]
) -> None:
    password_file(tmp_path).parent.mkdir(parents=True)
    password_file(tmp_path).write_text("me:it's $HOME `id`\n")
    use_server(tmp_path, "http://127.0.0.1:4777")
    file = tmp_path / ".tierwise/services/prefect.env"
    assert file.stat().st_mode & 0o777 == 0o600
    script = (
        f'. {file} && printf \'%s|%s\' "$PREFECT_API_URL" "$PREFECT_API_AUTH_STRING"'
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert done.stdout == "http://127.0.0.1:4777/api|me:it's $HOME `id`"


def test_a_process_that_has_imported_prefect_uses_the_projects_server(
    tmp_path: Path,
) -> None:
    """Else Prefect starts a second server, and both create the same database."""
    code = f"""
import prefect
from pathlib import Path
from prefect.settings import get_current_settings
from tierwise.orchestrate.api_password import use_server
use_server(Path({str(tmp_path)!r}), "http://127.0.0.1:4777")
print(get_current_settings().api.url)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "http://127.0.0.1:4777/api"


# The pool


POOLED = """
deployments:
  - name: a
    entrypoint: flows/sort.py:sort
    work_pool: {name: tierwise, job_variables: {env: {TIERWISE_WORKERS: "4"}}}
  - name: b
    entrypoint: flows/sort.py:sort
    work_pool: &pool {name: tierwise, job_variables: {env: {TIERWISE_WORKERS: "8", A: "{{ $A }}"}}}
  - name: c
    entrypoint: flows/sort.py:sort
    work_pool: {name: other, job_variables: {command: make}}
"""
REFUSED: list[dict[str, Any]] = [
    {"command": "touch /tmp/x"},
    {"working_dir": "/tmp"},
    {"entrypoint": "x"},
    {"env": {"LD_PRELOAD": "/tmp/x.so"}},
    {"env": {"PYTHONPATH": "/tmp"}},
    {"env": {"TIERWISE_WORKERS": "9"}},
    {"env.LD_PRELOAD": "/tmp/x.so"},
    {"env": {"TIERWISE_WORKERS": "4", "PATH": "/tmp"}},
]
TAKEN: list[dict[str, Any]] = [
    {},
    {"env": {"TIERWISE_WORKERS": "8", "A": "anything"}},
    {"stream_output": False, "name": "n", "labels": {"a": "b"}},
]


def test_a_run_cannot_have_the_pool_start_a_program(
    prefect_server: str, tmp_path: Path
) -> None:
    """A pool of an older version is brought up to that, and keeps its own variables."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
    from prefect.workers.process import ProcessWorker

    from tierwise.orchestrate.work_pool import restrict_work_pool

    (tmp_path / "prefect.yaml").write_text(POOLED)
    older = ProcessWorker.get_default_base_job_template()
    older["variables"]["properties"]["env"]["default"] = {"B": "{{ x }}"}
    with get_client(sync_client=True) as client:
        with suppress(ObjectNotFound):  # of another test on this server
            client.delete_work_pool("tierwise")
        pool = WorkPoolCreate(name="tierwise", type="process", base_job_template=older)
        client.create_work_pool(pool)
        try:
            assert restrict_work_pool(tmp_path) == ["command", "working_dir"]
            assert restrict_work_pool(tmp_path) == []
            template = client.read_work_pool("tierwise").base_job_template
            assert template["variables"]["properties"]["env"]["default"] == {
                "B": "{{ x }}"
            }
            assert "command" not in template["job_configuration"]
            assert "working_dir" not in template["job_configuration"]

            @flow
            def nothing() -> None: ...

            flow_id = client.create_flow(nothing)
            deployment = client.create_deployment(
                flow_id, "d", work_pool_name="tierwise"
            )
            for variables in TAKEN:
                client.create_flow_run_from_deployment(
                    deployment, job_variables=variables
                )
            for variables in REFUSED:
                with pytest.raises(PrefectHTTPStatusError) as refused:
                    client.create_flow_run_from_deployment(
                        deployment, job_variables=variables
                    )
                assert refused.value.response.status_code == 422
                with pytest.raises(PrefectHTTPStatusError):
                    client.create_deployment(
                        flow_id,
                        "e",
                        work_pool_name="tierwise",
                        job_variables=variables,
                    )
        finally:
            client.delete_work_pool("tierwise")


def test_a_deployment_that_names_a_command_is_an_error_with_its_line(
    prefect_server: str, tmp_path: Path
) -> None:
    from tierwise.orchestrate.work_pool import restrict_work_pool

    text = POOLED.replace("name: other", "name: tierwise")
    (tmp_path / "prefect.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"prefect\.yaml:11: .* takes no 'command'"):
        restrict_work_pool(tmp_path)
