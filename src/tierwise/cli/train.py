"""`tierwise train`: a local classifier from a step's labelled examples, as a model at price 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json, print_table
from tierwise.errors import ConfigError, Misuse
from tierwise.text.amounts import plural

if TYPE_CHECKING:
    from tierwise.evidence.training.labelled import Labelled
    from tierwise.gateway.learned.classifier import ClassifierMetadata
    from tierwise.gateway.learned.form import Form
    from tierwise.project import Project
    from tierwise.steps.examples import Example

ENTRY = """\
  {step}-learned:
    tier: local
    description: TF-IDF and logistic regression, trained by `tierwise train {step}`
    learned: {step}
    context_tokens: 1000000
    max_output_tokens: 64
    strength: 5
    price: {{input: 0, output: 0, source: microseconds of this machine, date: {today}}}"""


def train(
    step: Annotated[
        str,
        typer.Argument(
            metavar="STEP", help="A step in tasks/ that assigns a label, such as classify."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="A model with `learned: STEP`; required if there are several.",
        ),
    ] = None,
    golden: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Labelled examples; may be repeated; default: golden/STEP-examples.jsonl.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a step's local classifier from examples.

    The classifier answers in microseconds on this machine, at no cost. It learns from labelled
    examples, but never from those in golden/STEP.jsonl that it is certified on. The same examples
    give the same model. Other examples give another model, which must be certified again.
    """
    from tierwise.evidence.training.labelled import Labelled
    from tierwise.gateway.learned import trained_file
    from tierwise.orchestrate.environment import prepare_prefect
    from tierwise.project import Project
    from tierwise.records import highest
    from tierwise.text.terms import normalised

    project = Project.find()
    prepare_prefect(project.root)
    form = _form(project, step)
    name = _model(project, step, model)
    paths = golden or [project.root / "golden" / f"{step}-examples.jsonl"]
    found = [example for path in paths for example in _examples(project, step, path, form)]
    measured = _measured(project, step)
    kept = [example for example in found if normalised(example.text) not in measured]
    labelled = [Labelled(e.id, e.text, str(e.expected[form.field])) for e in kept]
    _check_labels(labelled, form, paths)
    path = trained_file(project.root, name)
    metadata = _trained(path, labelled, highest(*(e.sensitivity for e in kept)))
    told = _told(
        name, path.relative_to(project.root), metadata, labelled, left_out=len(found) - len(kept)
    )
    if as_json:
        print_json(told)
    else:
        _print(step, told)


def _model(project: Project, step: str, wanted: str | None) -> str:
    """Return the catalog entry to train. Raises Misuse without one, or with several unnamed ones."""
    if wanted:
        if project.catalog.model(wanted).learned != step:
            raise Misuse(f"{wanted} is not a model with `learned: {step}`")
        return wanted
    names = [model.name for model in project.catalog.models.values() if model.learned == step]
    if not names:
        import datetime

        entry = ENTRY.format(step=step, today=datetime.date.today())
        raise Misuse(
            f"no model in routing_rules/catalog.yaml has `learned: {step}`; add one under `models`:\n\n{entry}"
        )
    if len(names) > 1:
        raise Misuse(
            f"several models have `learned: {step}`; choose one by --model: {', '.join(names)}"
        )
    return names[0]


def _form(project: Project, step: str) -> Form:
    """Return the step's output, with the labels that golden/STEP.yaml gives."""
    from tierwise.evidence.golden import load_settings
    from tierwise.gateway.learned.form import form_of

    path = project.root / "golden" / f"{step}.yaml"
    spec = project.load_step(step)
    parameters = load_settings(path).parameters
    if missing := [name for name in spec.choices.values() if name not in parameters]:
        raise Misuse(
            f"what may the label be? Write `parameters: {{{missing[0]}: […]}}` into {path}"
        )
    return form_of(spec.schema(parameters))


def _examples(project: Project, step: str, path: Path, form: Form) -> Sequence[Example]:
    from tierwise.steps.examples import load_golden

    if path.resolve() == (project.root / "golden" / f"{step}.jsonl").resolve():
        raise Misuse(
            f"{path} is what models are certified on; what is trained on it knows the answers"
        )
    return load_golden(path, at_least=1, allowed={form.field: form.labels}).examples


def _measured(project: Project, step: str) -> set[str]:
    """Return the texts that models are certified on."""
    from tierwise.steps.examples import load_golden
    from tierwise.text.terms import normalised

    path = project.root / "golden" / f"{step}.jsonl"
    return (
        {normalised(e.text) for e in load_golden(path, at_least=0).examples}
        if path.exists()
        else set()
    )


def _check_labels(labelled: Sequence[Labelled], form: Form, paths: Sequence[Path]) -> None:
    """Raises ConfigError for a label without examples: answers would never have it."""
    if missing := [
        label for label in form.labels if label not in {example.label for example in labelled}
    ]:
        files = ", ".join(str(path) for path in paths)
        raise ConfigError(
            f"no example of {', '.join(missing)}; label some, at least 3 of each", path=files
        )


def _trained(path: Path, labelled: Sequence[Labelled], sensitivity: Any) -> ClassifierMetadata:
    """Train the classifier, unless the file has this very one; return its metadata."""
    from tierwise.cli.progress import status
    from tierwise.evidence.training.train import identity_before
    from tierwise.evidence.training.train import train as fit
    from tierwise.gateway.learned import load, save

    try:
        metadata = load(path).metadata
        if metadata.identity == identity_before(labelled) and metadata.sensitivity == sensitivity:
            typer.echo("Nothing has changed since it was trained.", err=True)
            return metadata
    except (
        ConfigError
    ):  # not there yet, damaged, or of another version: all the more reason to train
        pass
    with status(f"training on {plural(len(labelled), 'example')}"):
        classifier = fit(labelled, sensitivity=sensitivity)
    return save(classifier, path)


def _told(
    name: str,
    path: Path,
    metadata: ClassifierMetadata,
    labelled: Sequence[Labelled],
    *,
    left_out: int,
) -> dict[str, Any]:
    counts = Counter(example.label for example in labelled)
    return {
        "model": name,
        "file": str(path),
        "identity": metadata.identity,
        "sensitivity": metadata.sensitivity,
        "examples": metadata.n,
        "left_out": left_out,
        "labels": {label: counts[label] for label in metadata.labels},
        "accuracy": metadata.surest[0].accuracy,
        "surest": [asdict(surest) for surest in metadata.surest],
    }


def _print(step: str, told: dict[str, Any]) -> None:
    labels = ", ".join(f"{label} {count}" for label, count in told["labels"].items())
    typer.echo(f"{told['model']}: trained on {told['examples']} examples ({labels})")
    if told["left_out"]:
        typer.echo(
            f"Left out: {told['left_out']} that golden/{step}.jsonl has, on which it is certified"
        )
    rows = [
        {
            "the surest": f"{s['share']:.0%}",
            "confidence": f"{s['confidence']:.2f} and more",
            "right": f"{s['accuracy']:.1%}",
        }
        for s in told["surest"]
    ]
    typer.echo("On examples that it was not trained on (cross-validation):")
    print_table(rows)
    typer.echo(
        f"{told['file']} holds words of the examples: keep it as {told['sensitivity']} as they are."
    )
    typer.echo(f"Next: tierwise certify {step} --models {told['model']}")
