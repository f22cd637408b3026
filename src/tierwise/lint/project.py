"""What is wrong in a project, all of it, and the proof that its guards cannot be passed."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tierwise.lint.call_parameters import drift_findings
from tierwise.lint.code import Code, imported, layout_findings, prompt_findings, step_order
from tierwise.lint.dependencies import dependency_findings, field_findings
from tierwise.lint.evidence import certificate_findings, golden_findings
from tierwise.lint.examples import example_findings
from tierwise.lint.files import Files, read_files
from tierwise.lint.findings import Finding, of_error
from tierwise.lint.guard_proof import Proof, leak_findings, proven
from tierwise.lint.models import catalog_findings, routed_findings
from tierwise.lint.routes import Ground, guard_findings, route_findings
from tierwise.lint.shadowed_modules import hiding_findings
from tierwise.policy.router import Policy
from tierwise.project import Project, unavailable

__all__ = ["Finding", "Proof", "Report", "check_project"]


@dataclass(frozen=True)
class Report:
    """All findings in the order of files and lines. Without guards, or with faulty rules, there is no proof."""

    findings: tuple[Finding, ...]
    proof: Proof | None
    sound: bool  # rules and catalog could be read, so that routes were asked
    unverified: int  # models whose address or name nobody has tried

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.level == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """How many findings are warnings."""
        return len(self.findings) - self.errors


def check_project(
    project: Project, env: Mapping[str, str], today: datetime.date, *, flows: bool = True
) -> Report:
    """Check every file of a project; a file that is wrong hides nothing in the others. Never uses the network.

    `flows` says whether flows and tasks are imported, in a process of their own.
    """
    files = read_files(project)
    code = imported(project.root, today) if flows else Code()
    ground = _ground(files, env)
    proof = proven(ground, files.certificates) if ground else None
    found = [
        *(of_error(fault, files.root) for fault in files.faults),
        *layout_findings(files.root),
        *hiding_findings(files.root),
        *code.findings,
        *_of_files(files, code, today),
        *(_of_rules(files, ground, code) if ground else ()),
        *(leak_findings(ground, proof) if ground and proof else ()),
    ]
    unverified = (
        sum(not model.verified for model in files.catalog.models.values()) if files.catalog else 0
    )
    ordered = sorted(dict.fromkeys(found), key=lambda finding: finding.order)
    return Report(tuple(ordered), proof, files.sound, unverified)


def _ground(files: Files, env: Mapping[str, str]) -> Ground | None:
    if not (files.sound and files.catalog and files.rules and files.rules_source):
        return None
    return Ground(
        files.rules_source,
        files.rules,
        files.catalog,
        files.steps,
        unavailable(files.catalog, env, files.root),
    )


def _of_files(files: Files, code: Code, today: datetime.date) -> Iterator[Finding]:
    """What can be told of each file, whatever the others hold."""
    if files.catalog_source and files.catalog:
        yield from catalog_findings(files.catalog_source, files.catalog, today)
    if files.rules_source and files.rules:
        yield from dependency_findings(files.rules_source, files.rules, step_order(files.root))
        yield from field_findings(
            files.rules_source, files.rules, {step.name: step.fields for step in code.steps}
        )
    if files.certificates_source and files.catalog:
        yield from certificate_findings(
            files.certificates_source,
            files.certificates,
            files.catalog.models,
            files.steps,
            code.currents,
        )
    if code.steps:
        yield from prompt_findings(files.prompts, files.broken_prompts, code.steps)
    yield from drift_findings(
        code.asked, {certificate.step for certificate in files.certificates.certificates}
    )
    yield from golden_findings(
        files.root / "golden", {step.name: step.choices for step in code.steps}
    )


def _of_rules(files: Files, ground: Ground, code: Code) -> Iterator[Finding]:
    """What can be told once rules and catalog are right in themselves."""
    policy = Policy(catalog=ground.catalog, rules=ground.rules, certificates=files.certificates)
    yield from route_findings(ground)
    yield from guard_findings(ground)
    yield from routed_findings(ground.source, ground.rules, ground.catalog, ground.unavailable)
    yield from example_findings(ground, policy, files.prompts, code.currents)
