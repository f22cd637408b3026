"""Units for systemd: server, worker and desk of `tierwise up`, in the foreground.

Pure text. `tierwise up --systemd` prints it, and a person installs it.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

# systemd and the program itself restart what dies, so it must not give up after five times.
_UNIT = """\
[Unit]
Description={description}
Documentation=man:systemd.service(5)
{order}StartLimitIntervalSec=0

[Service]
Type=exec
WorkingDirectory={root}
# Keys of providers, one NAME=value a line, readable by this user alone. Optional.
EnvironmentFile=-{environment}
ExecStart={command}
Restart=always
RestartSec=5
TimeoutStopSec=60
UMask=0077
NoNewPrivileges=yes
RestrictSUIDSGID=yes
LockPersonality=yes
{more}
[Install]
WantedBy={target}
"""
# These need namespaces, which a user's own manager may not make on every machine.
_OF_SYSTEM = """\
User={user}
ProtectSystem=full
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
"""
# Flows are processes of the worker's, and outlive its restart. So they share /tmp: a private one
# would be deleted under them.
_OF_WORKER = "KillMode=process\n"
_OF_SERVER = "PrivateTmp=yes\n"
_DESCRIPTIONS = {
    "server": "Prefect's server",
    "worker": "Prefect's worker",
    "desk": "The desk",
}


@dataclass(frozen=True)
class Unit:
    """One unit: the file it belongs in, and its text."""

    path: str
    text: str


def units(root: Path, *, system_user: str | None, port: int | None) -> list[Unit]:
    """Return the units of a project, for its user's systemd or, as `system_user`, the system's."""
    name = unit_name(root)
    environment = f"%h/.config/{name}.env"
    folder = "~/.config/systemd/user"
    target = "default.target"
    of_manager = ""
    after_network = ""
    of_server = ""
    if system_user:
        environment = f"/etc/tierwise/{name}.env"
        folder = "/etc/systemd/system"
        target = "multi-user.target"
        of_manager = _OF_SYSTEM.format(user=system_user)
        after_network = "Wants=network-online.target\nAfter=network-online.target\n"
        of_server = _OF_SERVER
    # Not Requires: a worker waits for its server, and its flows outlive a restart of it.
    after_server = f"Wants={name}-server.service\nAfter={name}-server.service\n"
    chosen_port = f" --port {port}" if port else ""

    def unit(service: str, order: str, options: str, more: str) -> Unit:
        text = _UNIT.format(
            description=f"{_DESCRIPTIONS[service]} of {_value(root)}",
            order=order,
            root=_value(root),
            environment=environment,
            command=f"{_word(sys.executable)} -m tierwise up --foreground {service}{options}",
            more=of_manager + more,
            target=target,
        )
        return Unit(f"{folder}/{name}-{service}.service", text)

    return [
        unit("server", after_network, chosen_port, of_server),
        unit("worker", after_server, "", _OF_WORKER),
        # It serves without a server too, and looks for one now and then.
        unit("desk", after_network, "", of_server),
    ]


def instructions(root: Path, *, system_user: str | None) -> str:
    """Return how to install the units, as comments that may stay in them."""
    name = unit_name(root)
    manager = "systemctl" if system_user else "systemctl --user"
    journal = "journalctl" if system_user else "journalctl --user"
    lines = [
        "# Units for systemd. Put each into the file that its first line names. Then:",
        "#   tierwise down",
        f"#   {manager} daemon-reload",
        f"#   {manager} enable --now {name}-server {name}-worker {name}-desk",
        "#   tierwise desk --link      # the link that signs you in",
    ]
    if not system_user:
        lines.append(
            "#   loginctl enable-linger    # once, so that they run without a login"
        )
    lines.append(f"# Logs: {journal} -u {name}-worker")
    return "\n".join(lines) + "\n"


def unit_name(root: Path) -> str:
    """Return the first part of a project's units: `tierwise-inbox` for /srv/inbox."""
    return "tierwise-" + (
        re.sub("[^A-Za-z0-9]+", "-", root.name).strip("-") or "project"
    )


def _value(text: str | Path) -> str:
    """Return a text in which systemd replaces nothing."""
    return str(text).replace("%", "%%")


def _word(path: str) -> str:
    """Return a path as one word of a command."""
    text = _value(path).replace("$", "$$")
    if not re.search(r"[\s\"'\\;]", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
