"""The proof that no guard can be passed: all that the rules can tell apart goes through the real router."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass

from tierwise.lint.condition_boxes import meet
from tierwise.lint.findings import Finding, at
from tierwise.lint.routes import Ground, Layout
from tierwise.policy.catalog import Catalog
from tierwise.policy.certificates import Certificate, Certificates, Current
from tierwise.policy.router import Policy, route
from tierwise.policy.rules import Features, Guard, Rules

MOST_COMBINATIONS = 200_000
MOST_TESTS = 20_000_000  # combinations times routes: each combination may have to ask every route


@dataclass(frozen=True)
class Proof:
    """What was tried, in words, and every way past a guard that was found: there should be none."""

    combinations: int  # 0 where guards were held against routes instead
    tried: str
    leaks: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Such as `12,480 combinations: no guard can be passed`."""
        return f"{self.tried}: " + (
            f"{len(self.leaks)} ways past a guard" if self.leaks else "no guard can be passed"
        )


def proven(ground: Ground, certificates: Certificates) -> Proof | None:
    """Try to get past the guards with all models available, with and without certificates; None without guards.

    Each combination is tried where there are not too many. Else each guard is held against each route at a point
    that both hold for, which says the same, since a condition holds for a box and `Rules.forbidden` for all guards.
    """
    if not ground.rules.guards:
        return None
    size = sum(layout.space.size for layout in ground.layouts)
    tests = sum(layout.space.size * len(layout.routes) for layout in ground.layouts)
    if size <= MOST_COMBINATIONS and tests <= MOST_TESTS:
        leaks = [
            leak for layout in ground.layouts for leak in _by_trying(ground, layout, certificates)
        ]
        return Proof(size, f"{size:,} combinations", tuple(dict.fromkeys(leaks)))
    leaks = [leak for layout in ground.layouts for leak in _by_boxes(ground, layout, certificates)]
    routes = len(ground.rules.routes)
    guards = len(ground.rules.guards)
    against = f"{guards:,} guard{'' if guards == 1 else 's'}"
    tried = f"{routes:,} routes against {against} (too many combinations to try each)"
    return Proof(0, tried, tuple(dict.fromkeys(leaks)))


def leak_findings(ground: Ground, proof: Proof) -> Iterator[Finding]:
    """Ways past a guard as errors: they would be a fault in tierwise, not in the rules."""
    for leak in proof.leaks:
        yield at(
            ground.source,
            ("guards",),
            "error",
            "leak",
            f"{leak}; this is a fault in tierwise, please report it",
        )


def _by_trying(ground: Ground, layout: Layout, certificates: Certificates) -> Iterator[str]:
    policies = _policies(ground.catalog, ground.rules, layout.step, certificates)
    for f in layout.space.points():
        yield from _passed(f, ground.catalog, ground.rules.guards, policies)


def _by_boxes(ground: Ground, layout: Layout, certificates: Certificates) -> Iterator[str]:
    for i, box in layout.routes.items():
        alone = type(ground.rules)(
            version=1, guards=ground.rules.guards, routes=(ground.rules.routes[i],)
        )
        policies = _policies(ground.catalog, alone, layout.step, certificates)
        for _, guarded in layout.guards:
            if (both := meet(box, guarded)) is not None:
                yield from _passed(
                    layout.space.point(both), ground.catalog, ground.rules.guards, policies
                )


def _policies(
    catalog: Catalog, rules: Rules, step: str, certificates: Certificates
) -> tuple[tuple[Policy, Current | None], ...]:
    """All models available: without certificates, and with all that there are for the step taken as valid."""
    mine = [certificate for certificate in certificates.certificates if certificate.step == step]
    bare = (Policy(catalog=catalog, rules=rules), None)
    if not mine:
        return (bare,)
    today = datetime.date.today()
    current = Current(
        identities={name: model.identity for name, model in catalog.models.items()},
        prompt_hash="",
        step_hash="",
        today=today,
    )
    valid = Certificates(
        certificates=tuple(_as_valid(certificate, current) for certificate in mine)
    )
    return (bare, (Policy(catalog=catalog, rules=rules, certificates=valid), current))


def _as_valid(certificate: Certificate, current: Current) -> Certificate:
    known = {name: current.identities.get(name, "") for name in certificate.models}
    tomorrow = current.today + datetime.timedelta(days=1)
    return certificate.model_copy(
        update={"identities": known, "prompt_hash": "", "step_hash": "", "expires": tomorrow}
    )


def _passed(
    f: Features,
    catalog: Catalog,
    guards: tuple[Guard, ...],
    policies: tuple[tuple[Policy, Current | None], ...],
) -> Iterator[str]:
    """Every way past a guard for these features: what the router hands out, and what is asked before each attempt."""
    holding = [guard for guard in guards if guard.when.holds(f)]
    barred = {
        tier: [guard.name for guard in holding if tier not in guard.allow_tiers]
        for tier in catalog.tiers
    }
    rules = policies[0][0].rules
    for tier, names in barred.items():
        if bool(names) != (rules.forbidden(tier, f) is not None):
            yield f"guard {names[0] if names else '?'} is not asked for tier {tier} at {f}"
    for policy, current in policies:
        for name in route(f, policy, max_output_tokens=1, current=current).models:
            if names := barred[catalog.models[name].tier]:
                yield f"guard {names[0]} lets {name} see {f}"
