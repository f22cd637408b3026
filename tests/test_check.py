"""`tierwise check`: it finds all that is wrong, says where, and proves that no guard can be passed."""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.kit.projects import ROOT, make_project, model
from tests.kit.terminal import Terminal
from tierwise.lint.condition_boxes import reached
from tierwise.lint.condition_space import Space
from tierwise.lint.guard_proof import prove_guards
from tierwise.lint.project import check_project
from tierwise.lint.routes import RuleContext, StepLayout
from tierwise.policy.catalog import Catalog
from tierwise.policy.certificates import (
    Certificate,
    Certificates,
    lower_bound,
    save_certificates,
)
from tierwise.policy.rules import Condition, Features, Guard, Rules
from tierwise.project import Project
from tierwise.records import SENSITIVITIES
from tierwise.steps.examples import FEWEST
from tierwise.text.yaml import parse_yaml, read_yaml

HERE = "http://127.0.0.1:9"
GUARD = "  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}\n"


@dataclass(frozen=True)
class Checked:
    """A project whose rules, catalog or other files a test writes, and what `check` says of it without its flows."""

    root: Path
    terminal: Terminal

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(exist_ok=True)
        (self.root / path).write_text(dedent(text))

    def rules(self, routes: str, *, guards: str = GUARD, rest: str = "") -> None:
        """Rules with these routes, which begin in line 5 when there is one guard."""
        body = "".join(f"  - {line}\n" for line in routes.strip().splitlines())
        self.write(
            "routing_rules/rules.yaml",
            f"version: 1\nguards:\n{guards}routes:\n{body}{rest}",
        )

    def __call__(self, *arguments: str) -> list[str]:
        """The lines that `check` prints, the summary last."""
        return self.terminal(
            "check", "--no-flows", *arguments, cwd=self.root
        ).out.splitlines()

    def code(self, *arguments: str) -> int:
        return self.terminal("check", "--no-flows", *arguments, cwd=self.root).code

    def found(self, kind: str) -> list[str]:
        """The findings of one kind as `level line: message`."""
        findings = json.loads(
            self.terminal("check", "--no-flows", "--json", cwd=self.root).out
        )["findings"]
        return [
            f"{f['level']} {f['line']}: {f['message']}"
            for f in findings
            if f["kind"] == kind
        ]


@pytest.fixture
def project(tmp_path: Path, terminal: Terminal) -> Checked:
    """A local model `small` and a proprietary one `large`."""
    entries = (
        model("small", HERE),
        model("large", HERE, tier="proprietary", strength=90),
    )
    return Checked(make_project(tmp_path / "project", *entries), terminal)


# ---- the whole ----------------------------------------------------------------------------------


def test_the_shipped_project_has_no_error_and_its_guards_are_proven(
    terminal: Terminal,
) -> None:
    """Warnings are about this machine: keys that are not set here."""
    done = terminal("check", cwd=ROOT)
    assert done.code == 0, done.out
    assert " error: " not in done.out
    assert done.out.splitlines()[-1].startswith("no errors, ")
    assert "combinations: no guard can be passed" in done.out


def test_a_sound_project_is_one_line(project: Checked) -> None:
    [line] = project()
    assert re.fullmatch(
        r"no errors, no warnings. \d+ combinations: no guard can be passed.", line
    )
    assert project.code() == 0


def test_all_files_are_checked_although_each_is_broken(project: Checked) -> None:
    """One finding a fault, in the order of files and lines, and none hides another."""
    project.write(
        "routing_rules/catalog.yaml",
        "version: 1\ntiers: {local: {description: x}}\nmodels: {a: {tier: lokal}}",
    )
    project.write(
        "routing_rules/rules.yaml",
        "version: 1\nroutes:\n  - {name: a, try: [b]}\n  - {name: c, trys: [a]}",
    )
    project.write("routing_rules/certificates.yaml", "version: 7\n")
    project.write("prompts/classify.md.j2", "no front matter")
    project.write(
        "prompts/draft.md.j2",
        "---\nstep: draft\nversion: 1\nmax_output_tokens: 9\n---\n{% block system %}",
    )
    project.write("golden/draft.jsonl", "not json\n")
    project.write("pyproject.toml", "[tool.tierwise]\nledger = 1\n")
    lines = project()
    places = [line.split(": error: ")[0] for line in lines[:-1]]
    assert places == sorted(places)
    for place, words in {
        "golden/draft.jsonl:1": "not valid JSON",
        "prompts/classify.md.j2:1": "front matter",
        "prompts/draft.md.j2:6": "not a valid template",
        "pyproject.toml:1": "no setting named 'ledger'; did you mean 'ledger_url'?",
        "routing_rules/catalog.yaml:3": "models → a → context_tokens: Field required",
        "routing_rules/certificates.yaml:1": "version: Input should be 1",
        "routing_rules/rules.yaml:4": "no setting named 'trys'; did you mean 'try'?",
    }.items():
        assert any(
            line.startswith(f"{place}: error: ") and words in line for line in lines
        ), place
    assert lines[-1].endswith(
        "Routes and guards are checked once rules and catalog are right."
    )
    assert project.code() == 1


def test_warnings_are_no_failure_unless_asked_for(project: Checked) -> None:
    project.rules("{name: default, try: [large]}")
    assert [line.split(": ")[1] for line in project()[:-1]] == ["warning"]
    assert (project.code(), project.code("--strict")) == (0, 1)


def test_the_doctor_tells_of_a_faulty_catalog_once(project: Checked) -> None:
    project.write("routing_rules/catalog.yaml", "version: 1\ntierz: {}\n")
    found = project.terminal("doctor", "--json", cwd=project.root)
    assert found.code == 1
    faulty = [each["what"] for each in json.loads(found.out) if each["ok"] is False]
    assert faulty == ["catalog"]


def test_outside_of_a_project_the_command_is_wrong(
    terminal: Terminal, tmp_path: Path
) -> None:
    assert terminal("check", cwd=tmp_path).code == 2


def test_paths_are_told_from_where_the_terminal_is(project: Checked) -> None:
    project.rules("{name: default, try: [larg]}")
    lines = project.terminal(
        "check", "--no-flows", cwd=project.root / "routing_rules"
    ).out.splitlines()
    assert lines[0].startswith(
        "rules.yaml:5: error: no model named 'larg'; did you mean 'large'?"
    )


def test_nothing_is_left_behind(project: Checked) -> None:
    before = sorted(project.root.rglob("*"))
    project()
    assert sorted(project.root.rglob("*")) == before


# ---- names --------------------------------------------------------------------------------------


def test_every_misspelt_name_is_told_with_what_was_meant(project: Checked) -> None:
    project.rules(
        "{name: drafts, when: {step: [drafft], outcomes: {clasify.label: x}}, try: [smal, largge]}\n"
        "{name: default, try: [small], examples: [{step: extrakt, routes_to: smalll}]}",
        guards="  - {name: g, when: {step: sumarize}, allow_tiers: [locale]}\n",
        rest="floors: {drapht: 0.9}\nbudget: {allow_unpriced: [lrge]}\n",
    )
    told = [line.split(": error: ") for line in project()[:-1]]
    assert {
        (place.rpartition(":")[2], what.split("; did you mean ")[1])
        for place, what in told
    } == {
        ("3", "'summarize'?"),
        ("3", "'local'?"),
        ("5", "'draft'?"),
        ("5", "'classify'?"),
        ("5", "'small'?"),
        ("5", "'large'?"),
        ("6", "'extract'?"),
        ("6", "'small'?"),
        ("7", "'draft'?"),
        ("8", "'large'?"),
    }
    assert len(told) == 10


def test_an_entry_that_is_like_no_other_names_its_line_and_what_was_meant(
    project: Checked,
) -> None:
    catalog = project.root / "routing_rules" / "catalog.yaml"
    lines = catalog.read_text().splitlines()
    catalog.write_text(
        "\n".join(
            [
                *lines,
                "  other:",
                "    strength: 5",
                "    like: smal",
                "  third: {like: other}\n",
            ]
        )
    )
    assert project()[:2] == [
        f"routing_rules/catalog.yaml:{len(lines) + 3}: error: models → other → like: "
        "no entry of its own named 'smal'; did you mean 'small'?",
        f"routing_rules/catalog.yaml:{len(lines) + 4}: error: models → third → like: "
        "no entry of its own named 'other'; known: large, small",
    ]


# ---- routes -------------------------------------------------------------------------------------


def test_a_route_behind_one_that_takes_all_of_it_is_never_reached(
    project: Checked,
) -> None:
    project.rules(
        "{name: long, when: {tokens_min: 100}, try: [small]}\n"
        "{name: longer, when: {step: draft, tokens_min: 200}, try: [small]}\n"
        "{name: default, try: [small]}"
    )
    assert project.found("unreachable") == [
        "error 6: route 'longer' is never reached: 'long' before it takes all that it matches; "
        "move it up, narrow them, or take it out"
    ]


def test_a_route_behind_several_that_take_all_of_it_together_is_never_reached(
    project: Checked,
) -> None:
    project.rules(
        "{name: open, when: {sensitivity_max: internal}, try: [small]}\n"
        "{name: german, when: {sensitivity_min: confidential, language: de}, try: [small]}\n"
        "{name: german-drafts, when: {step: draft, language: de}, try: [small]}\n"
        "{name: drafts, when: {step: draft}, try: [small]}\n"
        "{name: default, try: [small]}"
    )
    [line] = project.found("unreachable")
    assert line.startswith(
        "error 7: route 'german-drafts' is never reached: 'open' and 'german' before it take all"
    )


def test_the_last_route_may_be_for_what_is_left_over_alone(project: Checked) -> None:
    project.rules(
        "{name: rest, when: {language: [de, en]}, try: [small]}\n{name: default, try: [small]}"
    )
    assert project.found("unreachable") == []


def test_a_candidate_that_a_guard_always_forbids_is_told_where_it_stands(
    project: Checked,
) -> None:
    """Also where that is so only because an earlier route takes the rest."""
    project.rules(
        "{name: open, when: {sensitivity_max: internal}, try: [large]}\n"
        "{name: drafts, when: {step: draft}, try: [small, large]}\n"
        "{name: default, try: [small]}"
    )
    assert project.found("always forbidden") == [
        "error 6: route 'drafts' names large, but guard confidential-stays-local forbids its tier, proprietary, "
        "for all that reaches this route; take it out, or narrow the guard"
    ]


def test_a_route_that_picks_by_proof_is_told_of_steps_without_any(
    project: Checked,
) -> None:
    project.rules(
        "{name: drafts, when: {step: draft}, try: [small]}\n"
        "{name: default, pick: cheapest_capable}"
    )
    [found] = project.found("unproven")
    assert found.startswith("warning 6: nothing is certified for ")
    # Its documents take another route.
    assert "draft" not in found.partition(", so route")[0]


def test_what_no_model_of_a_route_may_see_is_told_as_always_deferred(
    project: Checked,
) -> None:
    project.rules(
        "{name: drafts, when: {step: draft}, try: [large]}\n{name: default, try: [small, large]}"
    )
    assert project.found("always deferred") == [
        "warning 5: documents for draft with sensitivity confidential or restricted are always deferred: guard "
        "confidential-stays-local forbids every model of route 'drafts'; add a model that may see them"
    ]


def test_what_two_guards_forbid_between_them_is_always_deferred(
    project: Checked,
) -> None:
    project.rules(
        "{name: default, pick: cheapest_capable}",
        guards=GUARD
        + "  - {name: no-german-here, when: {language: de}, allow_tiers: [proprietary]}\n",
    )
    [line] = project.found("always deferred")
    assert "sensitivity confidential or restricted" in line
    assert "language de" in line
    assert "guards confidential-stays-local, no-german-here forbid every model" in line


def test_what_no_model_here_can_do_says_what_to_set(project: Checked) -> None:
    catalog = project.root / "routing_rules" / "catalog.yaml"
    head, small, large = catalog.read_text().partition("  large:")
    catalog.write_text(
        head
        + small
        + large.replace("api_key: test", "api_key: '${TIERWISE_TEST_KEY_OF_NOBODY}'")
    )
    project.rules(
        "{name: drafts, when: {step: draft}, try: [large]}\n{name: default, try: [small, large]}"
    )
    assert project.found("deferred here") == [
        "warning 5: documents for draft with sensitivity public or internal will be deferred here: no model of route "
        "'drafts' is available for them; set TIERWISE_TEST_KEY_OF_NOBODY"
    ]
    assert project.found("unavailable") == [
        "warning 5: large cannot be used here and is left out; set TIERWISE_TEST_KEY_OF_NOBODY"
    ]


def test_a_guard_that_forbids_nothing_is_told(project: Checked) -> None:
    project.rules(
        "{name: default, try: [small]}",
        guards="  - {name: g, allow_tiers: [proprietary, local]}\n",
    )
    assert [line[:39] for line in project.found("void guard")] == [
        "warning 3: guard 'g' forbids nothing: i"
    ]


def test_a_guard_that_leaves_a_tier_without_models_is_an_error(
    project: Checked,
) -> None:
    project.rules(
        "{name: default, try: [small]}",
        guards="  - {name: g, when: {language: de}, allow_tiers: [clarifai]}\n",
    )
    assert [line[:30] for line in project.found("empty tier")] == [
        "error 3: no model is in clarif"
    ]


def test_examples_that_do_not_hold_say_what_came_instead_and_why(
    project: Checked,
) -> None:
    project.rules(
        "{name: drafts, when: {step: draft}, try: [large, small], "
        "examples: [{step: draft, routes_to: large}, {step: classify, routes_to: large}, "
        "{step: draft, sensitivity: restricted, routes_to: large}, {step: draft, tokens: 9000, routes_to: large}, "
        "{step: draft, routes_to: small}]}\n"
        "{name: default, try: [small], examples: [{step: extract, routes_to: small}]}"
    )
    other, forbidden, long, second = project.found("example")
    assert "route 'default' takes it, where small comes first" in other
    assert "large is left out: guard confidential-stays-local" in forbidden
    assert "large is left out: needs about" in long
    assert "large comes first, not small" in second


# ---- outcomes -----------------------------------------------------------------------------------


def test_a_route_that_waits_for_its_own_steps_outcome_is_circular(
    project: Checked,
) -> None:
    project.rules(
        "{name: again, when: {step: [draft, classify], outcomes: {classify.label: x}}, try: [small]}\n"
        "{name: default, try: [small]}",
        guards=GUARD
        + "  - {name: g, when: {step: draft, outcomes: {draft: x}}, allow_tiers: [local]}\n",
    )
    assert [line[:60] for line in project.found("circular")] == [
        "error 4: guard 'g' needs the outcome of draft before draft h",
        "error 6: route 'again' needs the outcome of classify before ",
    ]


def test_routes_that_wait_for_each_others_outcomes_are_circular(
    project: Checked,
) -> None:
    project.rules(
        "{name: a, when: {step: draft, outcomes: {classify.label: x}}, try: [small]}\n"
        "{name: b, when: {step: classify, outcomes: {extract.term: x}}, try: [small]}\n"
        "{name: c, when: {step: extract, outcomes: {draft.reply: x}}, try: [small]}\n"
        "{name: default, try: [small]}"
    )
    [line] = project.found("circular")
    steps = line.partition(": ")[2].partition(": ")[0].split(", which waits for ")
    assert set(pairwise(steps)) == {
        ("draft", "classify"),
        ("classify", "extract"),
        ("extract", "draft"),
    }


def test_an_outcome_that_no_flow_has_by_then_is_told(project: Checked) -> None:
    """The shipped flows draft after they have sorted, and sort before they draft."""
    project.rules(
        "{name: a, when: {step: draft, outcomes: {classify.label: x}}, try: [small]}\n"
        "{name: b, when: {step: summarize, outcomes: {draft.reply: x}}, try: [small]}\n"
        "{name: default, try: [small]}"
    )
    assert project.found("too early") == [
        "warning 6: route 'b' looks at draft, but no flow runs draft before summarize, so it never applies"
    ]


# ---- models and evidence ------------------------------------------------------------------------


def findings(
    project: Checked, today: datetime.date, **options: Any
) -> list[tuple[str, str, str]]:
    report = check_project(
        Project(project.root), {}, today, **{"flows": False, **options}
    )
    return [(f.level, f.kind, f.message) for f in report.findings]


def test_a_deployment_of_a_flow_that_is_gone_is_found(project: Checked) -> None:
    """Before `tierwise up` deploys it, or a schedule fails every night."""
    project.write("flows/night.py", "@flow\ndef night(source, budget_usd=1.0): ...\n")
    project.write(
        "prefect.yaml",
        """\
        deployments:
          - {name: a, entrypoint: "flows/night.py:night", parameters: {source: x}}
          - {name: b, entrypoint: "flows/nigth.py:night"}
          - {name: c, entrypoint: "flows/night.py:nigth"}
          - {name: d, entrypoint: "flows/night.py:night", parameters: {sauce: x}}
          - {name: e, entrypoint: "elsewhere.flows.night"}
          - name: f
            entrypoint: flows/night.py:night
            work_pool:
              name: tierwise
              job_variables:
                env: {A: "1"}
                command: make
          - {name: g, work_pool: {name: own, job_variables: {command: make}}}
        """,
    )
    assert project.code() == 1
    assert [line.partition(" Remove")[0] for line in project.found("deployment")] == [
        "error 3: no file named 'flows/nigth.py'; did you mean 'flows/night.py'?",
        "error 4: flows/night.py has no flow named 'nigth'; did you mean 'night'?",
        "error 5: night takes no parameter named 'sauce'; did you mean 'source'?",
        "error 13: the work pool 'tierwise' of `tierwise up` takes no 'command', which could "
        "start any program; use a pool of your own, or remove it",
    ]


def test_prices_grow_old_and_models_retire(project: Checked) -> None:
    """The stand-ins' price is of 2026-11-01."""
    catalog = project.root / "routing_rules" / "catalog.yaml"
    catalog.write_text(
        f"{catalog.read_text()}    retires: 2027-02-15\n  third: {{like: small, examples: 1}}\n"
    )
    assert findings(project, datetime.date(2026, 12, 1)) == []
    january = findings(project, datetime.date(2027, 1, 31))
    assert [kind for _, kind, _ in january] == ["old price", "old price", "retiring"]
    assert (
        january[0][2]
        == "the price of small is 91 days old (2026-11-01); look it up and write today's date"
    )
    [gone] = [
        f for f in findings(project, datetime.date(2027, 2, 15)) if f[1] == "retired"
    ]
    assert gone == (
        "error",
        "retired",
        "large retired on 2027-02-15; take it out, or name its successor",
    )


def test_a_routed_model_of_unknown_price_must_be_allowed(project: Checked) -> None:
    catalog = project.root / "routing_rules" / "catalog.yaml"
    catalog.write_text(
        catalog.read_text().replace("price: {input: 1", "price: unknown # {input: 1", 1)
    )
    assert [line[:40] for line in project.found("unpriced")] == [
        "warning 6: the price of small is unknown"
    ]
    project.rules(
        "{name: default, try: [small]}", rest="budget: {allow_unpriced: [small]}\n"
    )
    assert project.found("unpriced") == []


def certificate(
    project: Project, step: str = "classify", name: str = "small", **changed: Any
) -> Certificate:
    fields = {
        "step": step,
        "models": (name,),
        "identities": {name: project.identities({}).known.get(name, "gone")},
        "prompt": f"{step} v1",
        "prompt_hash": project.prompts["classify"].hash,
        "step_hash": "other",
        "golden": f"{step}.jsonl",
        "golden_hash": "g",
        "errors": 8,
        "n": 142,
        "bound": lower_bound(8, 142),
        "date": datetime.date.today(),
        "tierwise_version": "0",
    }
    return Certificate(**{**fields, **changed})


def test_certificates_of_what_does_not_exist_are_errors(project: Checked) -> None:
    own = Project(project.root)
    proofs = [
        certificate(own, "clasify"),
        certificate(own, name="smal"),
        certificate(own),
    ]
    save_certificates(project.root / "routing_rules" / "certificates.yaml", proofs)
    assert [line.partition(": ")[2] for line in project.found("certificate")] == [
        "no step named 'clasify'; did you mean 'classify'? Take the certificate out if it is gone",
        "no model named 'smal'; did you mean 'small'? Take the certificate out if it is gone",
    ]


def golden(*texts: str) -> str:
    rows = [
        {"id": f"e{i}", "text": text, "label": "billing"}
        for i, text in enumerate(texts)
    ]
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def test_a_text_that_is_both_shown_and_measured_is_an_error(project: Checked) -> None:
    project.write("golden/classify.jsonl", golden(*(f"message {i}" for i in range(20))))
    project.write(
        "golden/classify-examples.jsonl",
        golden(*(f"letter {i}" for i in range(20)), "Message   7!"),
    )
    [line] = project.found("shown and measured")
    assert line.startswith(
        "error 21: the text of 'e20' is in classify.jsonl, line 8, too"
    )


def test_every_line_of_a_golden_set_that_is_wrong_is_told(project: Checked) -> None:
    project.write(
        "golden/classify.jsonl",
        golden("a", "b") + "{}\n" + golden("c") + '{"id": 9, "text": ""}\n',
    )
    assert [line.partition(":")[0] for line in project.found("golden set")] == [
        "error 3",
        "error 4",
        "error 5",
    ]
    assert project.found("few examples") == [
        f"warning None: 3 examples are too few to certify anything; label at least {FEWEST}"
    ]


def test_code_is_imported_apart_and_told_with_its_line(project: Checked) -> None:
    """Flows that fail, steps without prompts, prompts without steps, labels nobody can give, and void proof."""
    (project.root / "flows" / "contract_intake.py").write_text(
        "import os\n\n\ndef broken(:\n"
    )
    project.write("flows/leaves.py", "import sys\nfrom flows import helper\n")
    project.write("flows/helper.py", "print('noise')\nraise SystemExit(3)\n")
    project.write("flows/tasks.py", "")
    (project.root / "tasks" / "__init__.py").unlink()
    (project.root / "prompts" / "draft.md.j2").rename(
        project.root / "prompts" / "reply.md.j2"
    )
    project.write("golden/extract.yaml", "returns: flows.nowhere:Terms\n")
    project.write("golden/classify.yaml", "parameters: {labels: [billing, praise]}\n")
    project.write(
        "golden/classify.jsonl",
        golden(*map(str, range(20))) + '{"id": "x", "text": "x", "label": "prais"}\n',
    )
    save_certificates(
        project.root / "routing_rules" / "certificates.yaml",
        [certificate(Project(project.root))],
    )
    done = project.terminal("check", cwd=project.root)
    assert done.code == 1
    for line in (
        "flows/contract_intake.py:4: error: cannot be imported: SyntaxError: ",
        "flows/helper.py:2: error: cannot be imported: SystemExit: 3",
        "flows/tasks.py: error: hides tasks/ from the flows",
        "tasks/__init__.py: error: is missing",
        "tasks/draft.py: error: the step draft: no prompt named 'draft'",
        "prompts/reply.md.j2:2: warning: no step in tasks/ uses this prompt",
        "golden/extract.yaml: error: cannot be imported: ModuleNotFoundError: No module named 'flows.nowhere'",
        "golden/classify.jsonl:21: error: no label named 'prais'; did you mean 'praise'?",
        "routing_rules/certificates.yaml:5: warning: the certificate of small for classify is void: "
        "the step's schema, checks, parameters or an earlier step changed; what counts as right "
        "changed (the measure or its criteria); "
        'measure again with `tierwise certify classify --models "small"`',
    ):
        assert line in done.out, line
    assert "noise" not in done.out


# ---- the proof ----------------------------------------------------------------------------------

WORDS = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2, unique=True)
SENSITIVITY = st.sampled_from(SENSITIVITIES)


def said(
    name: str, values: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    return values.map(lambda value: {name: value})


MOST_POINTS = 500
SETTINGS = [  # what a condition may say, one thing each
    st.just({"step": ["draft"]}),
    st.tuples(SENSITIVITY, SENSITIVITY).map(
        lambda two: dict(
            zip(
                ("sensitivity_min", "sensitivity_max"),
                sorted(two, key=SENSITIVITIES.index),
                strict=True,
            )
        )
    ),
    st.sampled_from(["sensitivity_min", "sensitivity_max"]).flatmap(
        lambda name: said(name, SENSITIVITY)
    ),
    st.sampled_from(["tokens_min", "tokens_max"]).flatmap(
        lambda name: said(name, st.integers(0, 3))
    ),
    said("language", WORDS),
    said("stakes", st.lists(st.sampled_from(["low", "high"]), min_size=1, unique=True)),
    said("tags", st.dictionaries(st.sampled_from(["x", "y"]), WORDS, max_size=2)),
    said(
        "outcomes",
        st.dictionaries(
            st.sampled_from(["sort.f", "sort.g", "read"]), WORDS, max_size=2
        ),
    ),
    said("budget_used_min", st.sampled_from([0.0, 0.5])),
    said("minutes_left_max", st.sampled_from([5.0, 9.0])),
]


def can_hold(condition: dict[str, Any]) -> bool:
    sensitivities = [
        SENSITIVITIES.index(condition[f"sensitivity_{end}"])
        for end in ("min", "max")
        if f"sensitivity_{end}" in condition
    ]
    tokens = [
        condition[f"tokens_{end}"]
        for end in ("min", "max")
        if f"tokens_{end}" in condition
    ]
    return sensitivities == sorted(sensitivities) and tokens == sorted(tokens)


CONDITIONS = (
    st.lists(st.one_of(SETTINGS), max_size=2)
    .map(lambda parts: {name: value for part in parts for name, value in part.items()})
    .filter(can_hold)
)
POINTS = st.builds(
    Features,
    step=st.just("draft"),
    tokens=st.integers(0, 5),
    sensitivity=st.sampled_from(SENSITIVITIES),
    language=st.none() | st.sampled_from(["a", "b", "c"]),
    stakes=st.sampled_from(["low", "normal", "high"]),
    tags=st.dictionaries(
        st.sampled_from(["x", "y", "z"]), st.sampled_from(["a", "b", "c"])
    ),
    outcomes=st.fixed_dictionaries(
        {},
        optional={
            "read": st.sampled_from(["a", "c"]),
            "sort": st.dictionaries(
                st.sampled_from(["f", "g"]), st.sampled_from(["a", "b", "c"])
            ),
        },
    ),
    budget_used=st.sampled_from([0.0, 0.4, 0.5, 1.0]),
    minutes_left=st.none() | st.sampled_from([0.0, 5.0, 7.0, 100.0]),
)


def test_the_space_knows_every_setting_of_a_condition() -> None:
    """A new setting has to be added there, or nothing is proven about it."""
    whole = {
        "step": "draft",
        "sensitivity_min": "internal",
        "sensitivity_max": "internal",
        "tokens_min": 1,
        "tokens_max": 2,
        "language": "de",
        "stakes": "high",
        "tags": {"desk": "hr"},
        "outcomes": {"classify.label": "x"},
        "budget_used_min": 0.5,
        "minutes_left_max": 5,
    }
    assert set(whole) == set(Condition.model_fields)
    condition = Condition.model_validate(whole)
    assert (
        len(Space("draft", [condition]).box(condition)) == 8
    )  # tokens and sensitivity have two settings each


@given(st.lists(CONDITIONS, min_size=1, max_size=4))
def test_what_is_left_for_a_route_is_what_no_earlier_one_holds_for(
    found: list[dict[str, Any]],
) -> None:
    conditions = [Condition.model_validate(data) for data in found]
    space = Space("draft", conditions)
    for condition in conditions:
        assert condition.matches(space.point(space.box(condition)))
    boxes = [space.box(condition) for condition in conditions]
    regions = list(reached(boxes, space.full))
    for i, region in enumerate(regions):
        for piece in region or ():
            f = space.point(piece)
            assert next(j for j, c in enumerate(conditions) if c.matches(f)) == i


@given(st.lists(CONDITIONS, min_size=1, max_size=3), POINTS)
def test_every_document_is_like_some_point_of_the_space(
    found: list[dict[str, Any]], f: Features
) -> None:
    """Whatever features a document has, a point of the space answers every condition as they do."""
    conditions = [Condition.model_validate(data) for data in found]
    answers = [condition.matches(f) for condition in conditions]
    space = Space("draft", conditions)
    assume(space.size <= MOST_POINTS)
    points = space.points()
    assert any(
        [condition.matches(point) for condition in conditions] == answers
        for point in points
    )


def rules_of(conditions: list[dict[str, Any]], guards: list[dict[str, Any]]) -> Rules:
    routes = [
        {"name": f"r{i}", "when": c, "try": ["large", "small"]}
        for i, c in enumerate(conditions)
    ]
    last = {"name": "last", "pick": "cheapest_capable"}
    closed = [
        {"name": f"g{i}", "when": c, "allow_tiers": ["local"]}
        for i, c in enumerate(guards)
    ]
    return Rules.model_validate(
        {"version": 1, "guards": closed, "routes": [*routes, last]}
    )


@given(st.lists(CONDITIONS, max_size=4))
def test_a_route_is_unreachable_exactly_when_no_document_ever_takes_it(
    found: list[dict[str, Any]],
) -> None:
    rules = rules_of(found, [])
    layout = StepLayout(rules, "draft")
    assume(layout.space.size <= MOST_POINTS)
    taken = {rule.name for f in layout.space.points() if (rule := rules.matching(f))}
    reachable = {rules.routes[i].name for i, region in layout.regions.items() if region}
    assert reachable == taken


CATALOG = Catalog.model_validate(
    {
        "version": 1,
        "tiers": {
            "local": {"description": "here"},
            "proprietary": {"description": "vendors"},
        },
        "models": {
            name: {
                "tier": tier,
                "litellm_params": {"model": name},
                "context_tokens": 9,
                "max_output_tokens": 9,
                "strength": strength,
                "price": "unknown",
            }
            for name, tier, strength in [
                ("small", "local", 1),
                ("large", "proprietary", 9),
            ]
        },
    }
)


def context_of(rules: Rules) -> RuleContext:
    return RuleContext(
        parse_yaml("guards: []", "rules.yaml"), rules, CATALOG, ("draft",)
    )


def proof_of_large() -> Certificates:
    whole = Project(ROOT)
    return Certificates(
        certificates=(
            certificate(whole, "draft", "large"),
            certificate(whole, "draft", "small"),
        )
    )


@given(st.lists(CONDITIONS, max_size=2), st.lists(CONDITIONS, min_size=1, max_size=2))
def test_no_guard_can_be_passed_whatever_the_rules(
    found: list[dict[str, Any]], guards: list[dict[str, Any]]
) -> None:
    rules = rules_of(found, guards)
    size = StepLayout(rules, "draft").space.size
    assume(size <= MOST_POINTS)
    proof = prove_guards(context_of(rules), Certificates())
    assert proof
    assert (proof.leaks, proof.combinations) == ((), size)


class Leaky(Rules):
    """Rules whose guards look away from restricted documents."""

    def guard_against(self, tier: str, f: Features) -> Guard | None:
        return None if f.sensitivity == "restricted" else super().guard_against(tier, f)


@pytest.mark.parametrize("many", [False, True])
def test_a_router_that_forgot_a_guard_would_be_found_out(many: bool) -> None:
    """The proof can fail: it does for rules that are asked and say nothing, by trying and by boxes."""
    conditions = [{"tags": {f"t{i}": "x"}} for i in range(12 if many else 1)]
    honest = rules_of(conditions, [{"sensitivity_min": "restricted", "step": "draft"}])
    proof = prove_guards(
        context_of(Leaky.model_validate(honest.model_dump(by_alias=True))),
        proof_of_large(),
    )
    assert proof
    assert bool(proof.combinations) is not many
    assert any(
        "large see" in leak or "is not asked for tier proprietary" in leak
        for leak in proof.leaks
    )
    held = prove_guards(context_of(honest), proof_of_large())
    assert held
    assert held.leaks == ()


# ---- large and small files ----------------------------------------------------------------------


def test_ten_thousand_routes_are_loaded_and_checked(project: Checked) -> None:
    """Each is for a language of its own, but for one that is there twice."""
    routes = [
        f"{{name: r{i}, when: {{language: l{i}}}, try: [small]}}" for i in range(10_000)
    ]
    again = "{name: again, when: {language: l7}, try: [small]}"
    project.rules("\n".join([*routes, again, "{name: default, try: [small]}"]))
    finding, summary = project()
    assert finding.startswith(
        "routing_rules/rules.yaml:10005: error: route 'again' is never reached: 'r7' before it"
    )
    assert (
        "10,002 routes against 1 guard (too many combinations to try each): no guard can be passed"
        in summary
    )


def test_what_no_counting_tells_is_still_told_where_one_route_takes_all() -> None:
    """Two thousand routes of two tags each leave more pieces over than are counted."""
    conditions: list[dict[str, Any]] = [
        {"tags": {"a": f"a{i}", "b": f"b{i}"}} for i in range(2000)
    ]
    rules = rules_of([*conditions, conditions[1500] | {"language": "de"}], [])
    layout = StepLayout(rules, "draft")
    assert [i for i, region in layout.regions.items() if region == ()] == [2000]
    assert layout.regions[1999] is None


def test_an_empty_file_says_so(project: Checked) -> None:
    project.write("routing_rules/rules.yaml", "")
    assert project()[0] == "routing_rules/rules.yaml:1: error: the file is empty"


def test_many_findings_of_one_kind_are_counted(project: Checked) -> None:
    project.rules(
        "\n".join(
            f"{{name: r{i}, when: {{language: l{i}}}, try: [nobody]}}"
            for i in range(30)
        )
    )
    lines = project()
    assert (len(lines), sum("nobody" in line for line in lines)) == (22, 20)
    assert "--json shows all" in lines[-2]


# ---- the schema ---------------------------------------------------------------------------------


SCHEMAS = ("rules", "catalog")


def shipped_schema(name: str = "rules") -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(
        (ROOT / "routing_rules" / f"{name}.schema.json").read_text()
    )
    return schema


def test_the_shipped_schemas_are_the_ones_that_the_command_writes(
    terminal: Terminal, tmp_path: Path
) -> None:
    """When this fails: tierwise check --schema"""
    (tmp_path / "routing_rules").mkdir()
    done = terminal("check", "--schema", cwd=tmp_path)
    written = {
        f"routing_rules/{path.name}": path.read_text()
        for path in (tmp_path / "routing_rules").iterdir()
    }
    assert done.out.split() == sorted(written)
    assert written == {name: (ROOT / name).read_text() for name in written}
    assert len(written) == len(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("root", [ROOT, ROOT / "src/tierwise/starter/files"])
def test_the_shipped_files_fit_their_schemas_and_editors_find_them(
    root: Path, name: str
) -> None:
    path = root / "routing_rules" / f"{name}.yaml"
    assert path.read_text().startswith(
        f"# yaml-language-server: $schema={name}.schema.json\n"
    )
    # an editor sees a date as text
    data = json.loads(json.dumps(read_yaml(path).data, default=str))
    jsonschema.validate(data, shipped_schema(name))


ENTRY = {
    "tier": "local",
    "context_tokens": 8000,
    "max_output_tokens": 1000,
    "strength": 10,
    "price": "unknown",
}


@pytest.mark.parametrize(
    ("entry", "fits"),
    [
        (ENTRY, True),
        ({"like": "other"}, True),
        ({"like": "other", "strength": 20}, True),
        ({"like": "other", "strenght": 20}, False),
        ({**ENTRY, "price": {"input": 1, "output": 2}}, False),
        ({name: value for name, value in ENTRY.items() if name != "tier"}, False),
        ({**ENTRY, "name": "mine"}, False),
    ],
)
def test_an_editor_finds_what_is_wrong_with_a_catalog_entry(
    entry: dict[str, Any], fits: bool
) -> None:
    catalog = {
        "version": 1,
        "tiers": {"local": {"description": "here"}},
        "models": {"mine": entry},
    }
    validator = jsonschema.Draft202012Validator(shipped_schema("catalog"))
    assert validator.is_valid(catalog) is fits


@pytest.mark.parametrize(("name", "fewest"), [("rules", 7), ("catalog", 6)])
def test_the_schema_teaches_every_setting(name: str, fewest: int) -> None:
    schema = shipped_schema(name)
    objects = [schema, *(d for d in schema["$defs"].values() if d["type"] == "object")]
    assert len(objects) >= fewest
    for found in objects:
        for setting_name, setting in found["properties"].items():
            assert setting.get("description"), f"{found['title']}: {setting_name}"


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        ({"step": "draft"}, True),
        (
            {"step": ["draft", "classify"], "stakes": "high", "tags": {"desk": "hr"}},
            True,
        ),
        ({"step": []}, False),
        ({"stakes": ["huge"]}, False),
        ({"sensitivity": "public"}, False),
        ({"tokens_min": -1}, False),
    ],
)
def test_the_schema_takes_what_the_rules_take(
    condition: dict[str, Any], fits: bool
) -> None:
    data = {"version": 1, "routes": [{"name": "a", "when": condition, "try": ["b"]}]}
    assert jsonschema.Draft202012Validator(shipped_schema()).is_valid(data) is fits
    assert (
        parse_yaml(json.dumps(data), "rules.yaml").fitted(Rules)[0] is not None
    ) is fits
