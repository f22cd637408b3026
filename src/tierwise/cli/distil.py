"""`tierwise distil`: a classifier that learns from a strong model, and is certified to agree."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.confirming import confirm_spending
from tierwise.cli.opening import find_project
from tierwise.cli.options import AsJson, Yes
from tierwise.cli.output import print_json
from tierwise.errors import ConfigError, Misuse
from tierwise.text.amounts import plural, usd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierwise.engine import Engine
    from tierwise.evidence.certify import CandidateResult, Evaluation
    from tierwise.evidence.distil import (
        AgreementSample,
        Distillation,
        Learned,
        Pool,
        TeacherLabels,
    )
    from tierwise.project import Project

_MOST_LABELS_NAMED = 8


def distil(
    step: Annotated[
        str,
        typer.Argument(
            metavar="STEP",
            help="A step in tasks/ that assigns a label, such as classify.",
        ),
    ],
    teacher: Annotated[
        str,
        typer.Option(
            "--teacher",
            metavar="MODEL",
            help="The model whose answers are learned: the strongest that the step may use.",
        ),
    ],
    source: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Documents without labels: a folder, or a CSV or JSON Lines file.",
        ),
    ],
    budget_usd: Annotated[
        float | None,
        typer.Option(
            metavar="USD",
            min=0,
            help="The most to spend; needed for a teacher that costs money.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="The model with `learned: STEP` that learns; required if there are several.",
        ),
    ] = None,
    learn: Annotated[
        int,
        typer.Option(
            "--learn", metavar="N", min=20, help="The most documents to learn from."
        ),
    ] = 1500,
    certify: Annotated[
        int,
        typer.Option(
            "--certify", metavar="N", min=1, help="The most documents to certify with."
        ),
    ] = 800,
    sensitivity: Annotated[
        str,
        typer.Option(
            metavar="LEVEL", help="The sensitivity of documents that say none."
        ),
    ] = "internal",
    text_column: Annotated[
        str,
        typer.Option(metavar="NAME", help="The column of a table that has the text."),
    ] = "text",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Train a classifier on a strong model's answers, within a budget.

    For a step without labels. The teacher labels documents of a folder, through production's
    prompts, checks and guards: a confidential document is never sent to a model that it may not go
    to. The step's classifier learns from these answers. Then the teacher labels a uniform sample
    that the classifier has never seen, and a certificate says how often the two agree.

    Agreement is no correctness: where the teacher is wrong, the classifier may be wrong too. It
    counts only where `agreement_floors` in rules.yaml asks for it.

    The budget is a hard limit. What is paid is kept: after Ctrl-C, or with more money, the same
    command goes on from there.
    """
    from tierwise.cli.progress import CountBar, status
    from tierwise.cli.train import model_to_train
    from tierwise.engine import Engine
    from tierwise.evidence.certify import compare, look_at
    from tierwise.evidence.distil import (
        Sizes,
        TeacherLabels,
        check_distillable,
        distilled_file,
        label_to_certify,
        label_to_learn,
        measured_agreement,
    )
    from tierwise.evidence.distil.distil import first_guess
    from tierwise.gateway.learned import save, trained_file
    from tierwise.orchestrate.secrets import variables
    from tierwise.policy.certificates import save_certificates
    from tierwise.project import CERTIFICATES, Project

    project = find_project()
    name = model_to_train(project, step, model)
    _keep_other_classifier(project, name)
    # By way of text: Decimal(0.1) would be 0.1000000000000000055…
    budget = None if budget_usd is None else Decimal(str(budget_usd))
    with Engine(project, variables(project)) as engine, CountBar() as progress:
        distillation = replace(
            _distillation(engine, step, teacher, name, Sizes(learn, certify)),
            budget_usd=budget,
            on_progress=progress,
        )
        # before the documents are read, which may take a while
        check_teacher_first(distillation)
        with status(f"reading {source}"):
            pool = _read(project, distillation, source, sensitivity, text_column)
        looks = [
            look
            for look in project.certificates.looks
            if look.step == step and look.shows == "agreement"
        ]
        check_distillable(distillation, pool, len(looks))
        _, asked = distillation.question
        labels = TeacherLabels.read(
            distilled_file(project.root, step),
            distillation.label_field,
            asked,
            distillation.labels,
        )
        _ask(distillation, pool, labels, yes=yes)
        money = first_guess(distillation, pool)
        learned, labels = label_to_learn(distillation, pool, labels, money)
        save(learned.classifier, trained_file(project.root, name))
        sample, labels = label_to_certify(
            distillation, pool, labels, money, len(looks) + 1
        )
        spent = None if money.left is None else (budget or Decimal(0)) - money.left
    data: dict[str, Any] = {
        "step": step,
        "teacher": teacher,
        "model": name,
        "floor": distillation.floor,
        "documents": _pool_data(pool),
        "learned_from": len(learned.labels),
        "certified_with": len(sample.examples),
        "spent_usd": spent,
        "labels": str(labels.path.relative_to(project.root)),
        "stopped": learned.stopped or sample.missing,
        "certified": False,
    }
    if not as_json:
        _print_learned(distillation, learned)
    results: list[CandidateResult] = []
    if not sample.missing:
        # a project and an engine of their own: they know the classifier as it is now
        again = Project(project.root)
        with Engine(again, variables(again)) as engine, CountBar() as progress:
            evaluation = measured_agreement(
                engine, replace(distillation, engine=engine), sample, labels, progress
            )
            look = look_at(evaluation, [(name,)], "auto", again.certificates)
            results = compare(evaluation, [(name,)], look=look.number)
            shown = [
                result.certificate
                for result in results
                if result.certificate and result.certificate.covers(distillation.floor)
            ]
            save_certificates(project.root / CERTIFICATES, shown, look)
            data["certified"] = bool(shown)
            data |= _measured(evaluation, results)
            if not as_json:
                _print_measured(evaluation, results, data)
    if as_json:
        print_json(data)
        return
    _print_end(distillation, sample, data)


def check_teacher_first(distillation: Distillation) -> None:
    """Raise Misuse for a teacher or rules that cannot lead to a certificate."""
    from tierwise.evidence.distil.distil import check_teacher

    check_teacher(distillation)
    # raises where the rules have none
    _ = distillation.floor


def _keep_other_classifier(project: Project, name: str) -> None:
    """Raise Misuse where the model was trained on people's labels: they would be lost."""
    from tierwise.cli.train import ENTRY
    from tierwise.gateway.learned import read_metadata, trained_file

    path = trained_file(project.root, name)
    if not path.with_suffix(".json").exists():
        return
    try:
        metadata = read_metadata(path)
    except ConfigError:
        return  # damaged, or of another version: it is of no use
    if metadata.teacher:
        return
    step = project.catalog.model(name).learned
    import datetime

    entry = ENTRY.format(step=step, today=datetime.date.today()).replace(
        f"{step}-learned", f"{step}-distilled"
    )
    raise Misuse(
        f"{name} is trained on people's labels, which a teacher's would replace; add a model to "
        f"routing_rules/catalog.yaml and name it by --model {step}-distilled:\n\n{entry}"
    )


def _distillation(
    engine: Engine, step: str, teacher: str, model: str, sizes: Any
) -> Distillation:
    from tierwise.cli.train import form_of_step, open_encoders
    from tierwise.evidence.certify import measured_step
    from tierwise.evidence.distil import Distillation
    from tierwise.evidence.distil.vectors import RememberedVectors

    project = engine.project
    form = form_of_step(project, step)
    encoders = {
        name: RememberedVectors(encoder)
        for name, encoder in open_encoders(project, model).items()
    }
    spec, parameters = measured_step(project, step)
    return Distillation(
        engine=engine,
        step=spec,
        parameters=parameters,
        label_field=form.field,
        labels=form.labels,
        teacher=teacher,
        classifier=model,
        sizes=sizes,
        encoders=encoders,
        terms=project.catalog.model(model).uses_terms,
    )


def _read(
    project: Project,
    distillation: Distillation,
    source: Path,
    sensitivity: str,
    text_column: str,
) -> Pool:
    """Read the source, and return the documents that the teacher may label."""
    from tierwise.documents import iter_documents
    from tierwise.evidence.distil import pool_of

    policy = distillation.engine.policy
    documents = iter_documents(
        source,
        sensitivity=sensitivity,  # type: ignore[arg-type] # checked there
        text_column=text_column,
        settings=project.reading,
    )
    return pool_of(
        documents,
        step=distillation.step,
        rules=policy.rules,
        tier=policy.catalog.model(distillation.teacher).tier,
        known_texts=_labelled_texts(project, distillation.step.name),
    )


def _labelled_texts(project: Project, step: str) -> set[str]:
    """Return the texts that people have labelled, which models are certified on or shown."""
    from tierwise.steps.examples import read_golden
    from tierwise.text.terms import normalised

    texts: set[str] = set()
    for path in sorted((project.root / "golden").glob(f"{step}*.jsonl")):
        if path.stem.endswith("-labels"):
            continue
        examples, _ = read_golden(path, at_least=0)
        texts.update(normalised(example.text) for example in examples.values())
    return texts


def _ask(
    distillation: Distillation, pool: Pool, labels: TeacherLabels, *, yes: bool
) -> None:
    """Print what will be done and the most that it costs, and ask whether to spend it."""
    for line in _plan_lines(distillation, pool, labels):
        typer.echo(line, err=True)
    confirm_spending(yes=yes)


def _plan_lines(
    distillation: Distillation, pool: Pool, labels: TeacherLabels
) -> list[str]:
    teacher = distillation.teacher
    sizes = distillation.sizes
    left_out = []
    if pool.withheld:
        left_out.append(
            f"{pool.withheld} that {teacher} may not see ({pool.withheld_because})"
        )
    if pool.unreadable:
        left_out.append(f"{pool.unreadable} unreadable")
    if pool.labelled_by_people:
        left_out.append(f"{pool.labelled_by_people} with people's labels in golden/")
    if pool.repeated:
        left_out.append(f"{pool.repeated} repeated")
    lines = [f"{distillation.step.name}: {plural(pool.read, 'document')}."]
    if left_out:
        lines[0] += f" Left out: {', '.join(left_out)}."
    learn = min(sizes.learn, len(pool.learn))
    certify = min(sizes.certify, len(pool.certify))
    most = "at no cost"
    if distillation.budget_usd is not None:
        most = f"for at most {usd(distillation.budget_usd)}"
    lines.append(
        f"{teacher} labels up to {learn} documents to learn from and {certify} to certify with, "
        f"{most}."
    )
    identity, asked = distillation.question
    known = [
        *labels.of(identity, asked, "learn"),
        *labels.of(identity, asked, "certify"),
    ]
    if known:
        lines.append(
            f"{plural(len(known), 'label')} of it are paid and kept: it goes on from there."
        )
    stronger = _stronger(distillation)
    if stronger:
        lines.append(
            f"Note: {stronger} is stronger than {teacher}. Where a route allows {stronger}, "
            f"agreement with {teacher} does not count."
        )
    return lines


def _stronger(distillation: Distillation) -> str | None:
    """Return the strongest available model if it is stronger than the teacher."""
    policy = distillation.engine.policy
    teacher = policy.catalog.model(distillation.teacher)
    for name in policy.by_strength:
        candidate = policy.catalog.model(name)
        if candidate.learned is not None:
            continue
        if policy.unusable(candidate, distillation.step.name) is not None:
            continue
        return name if candidate.strength > teacher.strength else None
    return None


def _pool_data(pool: Pool) -> Mapping[str, Any]:
    return {
        "read": pool.read,
        "to_learn_from": len(pool.learn),
        "set_aside_to_certify": len(pool.certify),
        "withheld_by_guards": pool.withheld,
        "unreadable": pool.unreadable,
        "labelled_by_people": pool.labelled_by_people,
        "repeated": pool.repeated,
    }


def _print_learned(distillation: Distillation, learned: Learned) -> None:
    counts = Counter(str(label.label) for label in learned.labels).most_common()
    named = ", ".join(f"{label} {n}" for label, n in counts[:_MOST_LABELS_NAMED])
    if len(counts) > _MOST_LABELS_NAMED:
        named += f", and {len(counts) - _MOST_LABELS_NAMED} more"
    typer.echo(
        f"{distillation.classifier} learned from {len(learned.labels)} answers of "
        f"{distillation.teacher} ({named})."
    )
    if learned.stopped:
        typer.echo(f"Fewer than wanted: {learned.stopped}.")
    left_out = learned.classifier.metadata.left_out
    if left_out:
        typer.echo(
            f"It never answers {', '.join(left_out)}: {distillation.teacher} gave them to fewer "
            "than 3 documents."
        )


def _measured(evaluation: Evaluation, results: list[CandidateResult]) -> dict[str, Any]:
    """Return the measurements as plain data; agreement is called nothing else."""
    rows = []
    for result in results:
        measured = result.measurement
        rows.append(
            {
                "candidate": measured.name,
                "threshold": measured.threshold,
                "keeps": measured.coverage,
                "n": measured.n,
                "agrees": measured.n - measured.errors,
                "shows": result.bound,
                "meets_floor": evaluation.floor is not None
                and result.bound >= evaluation.floor,
                "next_floor": result.next_floor and asdict(result.next_floor),
            }
        )
    return {"agreement": rows, "look": results[0].level.alpha if results else None}


def _print_measured(
    evaluation: Evaluation, results: list[CandidateResult], data: dict[str, Any]
) -> None:
    from tierwise.cli.output import print_table
    from tierwise.evidence.certify.next_floor import NextFloor
    from tierwise.policy.certificates import shortened

    size = len(evaluation.golden.examples)
    rows = [
        {
            "candidate": row["candidate"],
            "keeps": "" if row["keeps"] is None else f"{row['keeps']:.0%}",
            "agrees": f"{row['agrees']} of {row['n']}",
            "shows": shortened(row["shows"]),
            "enough": "yes" if row["meets_floor"] else "no",
        }
        for row in data["agreement"]
    ]
    print_table(
        rows,
        title=f"Agreement with {evaluation.teacher} on {plural(size, 'document')} drawn at "
        f"random, agreement floor {evaluation.floor:g}",
    )
    for result in results:
        if result.note:
            typer.echo(f"{result.measurement.name}: {result.note}")
        following = result.next_floor
        if isinstance(following, NextFloor):
            share = f"{following.coverage:.0%} of the documents"
            if following.coverage == 1:
                share = "all documents"
            typer.echo(
                f"{result.measurement.name}: about {following.more} more documents like these "
                f"would show an agreement of {following.floor:g} for {share}"
            )


def _print_end(
    distillation: Distillation, sample: AgreementSample, data: dict[str, Any]
) -> None:
    from tierwise.project import CERTIFICATES

    teacher = distillation.teacher
    if data["certified"]:
        typer.echo(
            f"1 certificate of agreement with {teacher} written to {CERTIFICATES}. It is no proof "
            f"of correctness: where {teacher} is wrong, {distillation.classifier} may be too."
        )
    elif sample.missing:
        typer.echo(
            f"Nothing is certified yet: {sample.missing}. The same command goes on from here."
        )
    else:
        typer.echo(
            "No certificate of agreement: the floor is not shown. More documents, or a lower "
            "agreement floor, may show it."
        )
    cost = "Nothing was spent"
    if distillation.budget_usd is not None:
        cost = f"Spent {usd(data['spent_usd'])} of {usd(distillation.budget_usd)}"
    typer.echo(
        f"{cost}. {teacher}'s labels are in {data['labels']}, with the texts: keep the file as "
        "they are, and out of golden/."
    )
