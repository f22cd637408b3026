"""The proof that no guard can be bypassed: every combination goes through the real router."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass

from tierwise.lint.condition_boxes import meet
from tierwise.lint.findings import Finding, finding_at
from tierwise.lint.routes import RuleContext, StepLayout
from tierwise.policy.catalog import Catalog
from tierwise.policy.certificates import (
    AgreementCertificate,
    Certificate,
    Certificates,
    Current,
)
from tierwise.policy.router import Policy, route
from tierwise.policy.rules import Features, Rules

MAX_COMBINATIONS = 200_000
# combinations times routes: a combination may have to be held against each
MAX_TESTS = 20_000_000


@dataclass(frozen=True)
class GuardProof:
    """The combinations that were tried, and every bypass of a guard: there should be none."""

    combinations: int  # 0 where guards were compared with routes instead
    tried: str
    leaks: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Such as `12,480 combinations: no guard can be passed`."""
        if self.leaks:
            return f"{self.tried}: {len(self.leaks)} ways past a guard"
        return f"{self.tried}: no guard can be passed"


@dataclass(frozen=True)
class _PolicyCase:
    """A policy to try, with the state that its certificates agree with."""

    policy: Policy
    current: Current | None


def prove_guards(context: RuleContext, certificates: Certificates) -> GuardProof | None:
    """Try to bypass the guards, with all models available, with and without certificates.

    Returns None without guards. Each combination is tried where there are not too many. Else each
    guard is held against each route at one point that both match. That is as strong, since a
    condition matches a box and `Rules.forbidden` applies all guards.
    """
    if not context.rules.guards:
        return None
    combinations = 0
    tests = 0
    for layout in context.layouts:
        combinations += layout.space.size
        tests += layout.space.size * len(layout.routes)
    every_combination = combinations <= MAX_COMBINATIONS and tests <= MAX_TESTS

    leaks: dict[str, None] = {}
    for layout in context.layouts:
        if every_combination:
            leaks |= dict.fromkeys(_try_combinations(context, layout, certificates))
        else:
            leaks |= dict.fromkeys(_try_boxes(context, layout, certificates))
    if every_combination:
        return GuardProof(combinations, f"{combinations:,} combinations", tuple(leaks))
    routes = len(context.rules.routes)
    guards = len(context.rules.guards)
    tried = (
        f"{routes:,} routes against {guards:,} guard{'' if guards == 1 else 's'} "
        "(too many combinations to try each)"
    )
    return GuardProof(0, tried, tuple(leaks))


def leak_findings(context: RuleContext, proof: GuardProof) -> Iterator[Finding]:
    """Yield bypasses of a guard as errors: they would be a fault in tierwise, not in the rules."""
    for leak in proof.leaks:
        message = f"{leak}; this is a fault in tierwise, please report it"
        yield finding_at(context.source, ("guards",), "error", "leak", message)


def _try_combinations(
    context: RuleContext, layout: StepLayout, certificates: Certificates
) -> Iterator[str]:
    cases = _policy_cases(context.catalog, context.rules, layout.step, certificates)
    for features in layout.space.points():
        yield from _bypasses(features, context.catalog, cases)


def _try_boxes(
    context: RuleContext, layout: StepLayout, certificates: Certificates
) -> Iterator[str]:
    """Try each route alone, at one point that it and a guard match."""
    for number, box in layout.routes.items():
        # the rules' own class: a subclass may test guards otherwise
        rules_class = type(context.rules)
        rule = context.rules.routes[number]
        route_alone = rules_class(
            version=1, guards=context.rules.guards, routes=(rule,)
        )
        cases = _policy_cases(context.catalog, route_alone, layout.step, certificates)
        for _, guarded in layout.guards:
            both = meet(box, guarded)
            if both is not None:
                yield from _bypasses(layout.space.point(both), context.catalog, cases)


def _policy_cases(
    catalog: Catalog, rules: Rules, step: str, certificates: Certificates
) -> list[_PolicyCase]:
    """Return policies with all models available, without certificates and with valid ones."""
    cases = [_PolicyCase(Policy(catalog=catalog, rules=rules), None)]
    listed = (*certificates.all, *certificates.fields)
    own = [certificate for certificate in listed if certificate.step == step]
    if own:
        current = Current(
            identities=dict.fromkeys(catalog.models, ""),
            prompt_hash="",
            step_hash="",
            today=datetime.date.today(),
            fields=tuple(rules.field_floors.get(step, ())),
        )
        valid = Certificates()
        for certificate in own:
            valid = valid.with_certificate(_as_valid(certificate, current))
        policy = Policy(catalog=catalog, rules=rules, certificates=valid)
        cases.append(_PolicyCase(policy, current))
    return cases


def _as_valid(certificate: Certificate, current: Current) -> Certificate:
    """Return a certificate that agrees with `current`, whatever it was measured with."""
    identities = {name: current.identities.get(name, "") for name in certificate.models}
    # the same empty values as in `current`, and a day that has not come
    changes = {
        "identities": identities,
        "prompt_hash": "",
        "step_hash": "",
        "measure_hash": "",
        "escalate_hash": "",
        "golden_file_hash": "",
        "than_identity": "",
        "expires": current.today + datetime.timedelta(days=1),
    }
    if isinstance(certificate, AgreementCertificate):
        changes["teacher_identity"] = current.identities.get(certificate.teacher, "")
    return certificate.model_copy(update=changes)


def _bypasses(
    features: Features, catalog: Catalog, cases: list[_PolicyCase]
) -> Iterator[str]:
    """Yield every bypass of a guard for these features.

    Looked at are the router's models, and the test that is made before each attempt.
    """
    rules = cases[0].policy.rules  # all cases have the same ones
    matching = [guard for guard in rules.guards if guard.applies(features)]
    forbidding: dict[str, list[str]] = {}
    for tier in catalog.tiers:
        forbidding[tier] = [guard.name for guard in matching if guard.forbids(tier)]

    # first the test before each attempt, which fallbacks, judges and shadows pass too
    for tier, names in forbidding.items():
        tested = rules.forbidden(tier, features) is not None
        if tested != bool(names):
            guard = names[0] if names else "?"
            yield f"guard {guard} is not asked for tier {tier} at {features}"
    # then the router's own choice
    for case in cases:
        chosen = route(features, case.policy, max_output_tokens=1, current=case.current)
        for name in chosen.models:
            names = forbidding[catalog.models[name].tier]
            if names:
                yield f"guard {names[0]} lets {name} see {features}"
