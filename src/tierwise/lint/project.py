"""All findings of a project, and the proof that its guards cannot be bypassed."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tierwise.lint.call_parameters import drift_findings
from tierwise.lint.code import (
    Code,
    import_code,
    layout_findings,
    prompt_findings,
    step_order,
)
from tierwise.lint.dependencies import (
    dependency_findings,
    field_findings,
    floor_findings,
)
from tierwise.lint.deployments import deployment_findings
from tierwise.lint.evidence import certificate_findings, golden_findings
from tierwise.lint.examples import example_findings
from tierwise.lint.files import ProjectFiles, read_files
from tierwise.lint.findings import Finding, finding_from_error
from tierwise.lint.guard_proof import GuardProof, leak_findings, prove_guards
from tierwise.lint.models import (
    address_findings,
    catalog_findings,
    routed_findings,
    same_model_findings,
)
from tierwise.lint.routes import (
    RuleContext,
    guard_findings,
    route_findings,
    transport_findings,
    unproven_findings,
)
from tierwise.lint.shadowed_modules import shadowing_findings
from tierwise.policy.certificates import Current
from tierwise.policy.router import Policy
from tierwise.policy.rules import unknown_checks
from tierwise.project import Project, unavailable
from tierwise.steps.checks import BUILT_IN

__all__ = ["Finding", "GuardProof", "ProjectCheck", "check_project"]


@dataclass(frozen=True)
class ProjectCheck:
    """All findings in the order of files and lines.

    There is no proof without guards, or while rules or catalog are wrong.
    """

    findings: tuple[Finding, ...]
    proof: GuardProof | None
    sound: bool  # rules and catalog could be read, so that routes were worked out
    unverified: int  # models whose address or name was never tried

    @property
    def errors(self) -> int:
        """The number of findings that are errors."""
        return sum(finding.level == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """The number of findings that are warnings."""
        return len(self.findings) - self.errors


_NOTHING: Mapping[tuple[str, tuple[str, ...]], str] = {}


def check_project(
    project: Project,
    env: Mapping[str, str],
    today: datetime.date,
    *,
    flows: bool = True,
    demoted: Mapping[tuple[str, tuple[str, ...]], str] = _NOTHING,
) -> ProjectCheck:
    """Check every file of a project, without the network; a fault in one hides nothing in others.

    With `flows`, import flows and tasks, too, in a separate process. `demoted` has the certificates
    that no longer count by the ledger, each with the reason.
    """
    files = read_files(project)
    code = import_code(project.root, today) if flows else Code()
    context = _rule_context(files, env)
    proof = prove_guards(context, files.certificates) if context else None

    findings = [finding_from_error(fault, files.root) for fault in files.faults]
    findings += layout_findings(files.root)
    findings += shadowing_findings(files.root)
    findings += deployment_findings(files.root)
    findings += code.findings
    findings += _file_findings(files, code, today, demoted)
    if files.catalog_source and files.catalog:
        findings += address_findings(files.catalog_source, files.catalog, env)
    if context is not None and files.catalog_source is not None:
        identities = project.identities(env).known
        findings += _rule_findings(files, context, code)
        findings += same_model_findings(
            files.catalog_source, context.catalog, identities
        )
    if context is not None and proof is not None:
        findings += leak_findings(context, proof)
    # one fault may be found twice, such as by reading a file and by importing what reads it
    distinct = dict.fromkeys(findings)
    ordered = sorted(distinct, key=lambda finding: finding.order)

    unverified = 0
    if files.catalog:
        models = files.catalog.models.values()
        embedders = files.catalog.embedders.values()
        unverified = sum(not model.verified for model in models)
        unverified += sum(not entry.verified for entry in embedders)
    return ProjectCheck(tuple(ordered), proof, files.sound, unverified)


def _rule_context(files: ProjectFiles, env: Mapping[str, str]) -> RuleContext | None:
    """Return rules and catalog for the checks of routes; None where one of them is wrong."""
    # `sound` also covers names: rules that can be read may name a model that is not there
    if not (files.sound and files.catalog and files.rules and files.rules_source):
        return None
    return RuleContext(
        source=files.rules_source,
        rules=files.rules,
        catalog=files.catalog,
        steps=files.steps,
        unavailable=unavailable(files.catalog, env, files.root),
    )


def _file_findings(
    files: ProjectFiles,
    code: Code,
    today: datetime.date,
    demoted: Mapping[tuple[str, tuple[str, ...]], str],
) -> Iterator[Finding]:
    """Yield the findings of each file that do not depend on the other files being right."""
    if files.catalog_source and files.catalog:
        yield from catalog_findings(files.catalog_source, files.catalog, today)
    if files.rules_source and files.rules:
        fields = {step.name: step.fields for step in code.steps}
        flows = step_order(files.root)
        yield from dependency_findings(files.rules_source, files.rules, flows)
        yield from field_findings(files.rules_source, files.rules, fields)
        by_field = {step.name: step.by_field for step in code.steps}
        yield from floor_findings(files.rules_source, files.rules, fields, by_field)
    yield from _check_name_findings(files, code)
    if files.certificates_source and files.catalog:
        yield from certificate_findings(
            files.certificates_source,
            files.certificates,
            files.catalog.models,
            files.steps,
            _with_demotions(code.currents, demoted),
        )
    if code.steps:
        yield from prompt_findings(files.prompts, files.broken_prompts, code)
    listed = (*files.certificates.all, *files.certificates.fields)
    certified = {certificate.step for certificate in listed}
    yield from drift_findings(code.calls, certified)
    choices = {step.name: step.choices for step in code.steps}
    yield from golden_findings(files.root / "golden", choices)


def _with_demotions(
    currents: Mapping[str, Current],
    demoted: Mapping[tuple[str, tuple[str, ...]], str],
) -> dict[str, Current]:
    """Return the state of each step with the certificates that no longer count."""
    result = {}
    for step, current in currents.items():
        of_step = {
            models: why for (name, models), why in demoted.items() if name == step
        }
        result[step] = replace(current, demoted=of_step)
    return result


def _check_name_findings(files: ProjectFiles, code: Code) -> Iterator[Finding]:
    """Yield names in `escalate.on` that no check of the project's steps has."""
    if files.rules_source is None or files.rules is None:
        return
    # a name may be that of a check in a module that could not be imported
    if code.checks is None:
        return
    known = code.checks.union(BUILT_IN)
    for fault in unknown_checks(files.rules_source, files.rules, known):
        yield finding_from_error(fault, files.root, "check name")


def _rule_findings(
    files: ProjectFiles, context: RuleContext, code: Code
) -> Iterator[Finding]:
    """Yield the findings that need rules and catalog to be right in themselves."""
    policy = Policy(
        catalog=context.catalog, rules=context.rules, certificates=files.certificates
    )
    yield from route_findings(context)
    yield from guard_findings(context)
    yield from transport_findings(context)
    certified = {certificate.step for certificate in files.certificates.all}
    yield from unproven_findings(context, certified)
    yield from routed_findings(
        context.source, context.rules, context.catalog, context.unavailable
    )
    yield from example_findings(context, policy, files.prompts, code.currents)
