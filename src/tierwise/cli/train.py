"""`tierwise train`: a local classifier from a step's labelled examples, as a model at price 0."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
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
    from tierwise.text.vectors import Encoder

# To be copied into the catalog; printed where no model has `learned: STEP`.
ENTRY = """\
  {step}-learned:
    tier: local
    description: A classifier trained by `tierwise train {step}`
    learned: {step}
    # embedder: e5-small    # learn from an embedder's vectors: often better than TF-IDF
    context_tokens: 1000000
    max_output_tokens: 64
    strength: 5
    price: {{input: 0, output: 0, source: microseconds of this machine, date: {today}}}"""


def train(
    step: Annotated[
        str,
        typer.Argument(
            metavar="STEP",
            help="A step in tasks/ that assigns a label, such as classify.",
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

    The classifier answers on this machine, at no cost: in microseconds, or with an embedder in
    milliseconds. It learns from labelled examples, but never from those in golden/STEP.jsonl that
    it is certified on. The same examples give the same model. Other examples give another model,
    which must be certified again.
    """
    from tierwise.evidence.training.labelled import Labelled
    from tierwise.gateway.learned import trained_file
    from tierwise.project import Project
    from tierwise.records import highest
    from tierwise.text.terms import normalised

    project = Project.find()
    form = form_of_step(project, step)
    name = model_to_train(project, step, model)
    paths = golden or [project.root / "golden" / f"{step}-examples.jsonl"]
    examples: list[Example] = []
    for path in paths:
        examples += _load_examples(project, step, path, form)
    # A classifier that has seen a golden example would be certified on its own memory.
    golden_texts = _golden_texts(project, step)
    kept = [
        example for example in examples if normalised(example.text) not in golden_texts
    ]
    labelled = [
        Labelled(example.id, example.text, str(example.expected[form.field]))
        for example in kept
    ]
    model_file = trained_file(project.root, name)
    # The file contains words of the examples, so it is as sensitive as the most sensitive one.
    sensitivity = highest(*(example.sensitivity for example in kept))
    encoders = open_encoders(project, name)
    metadata = _train_if_changed(
        model_file,
        labelled,
        sensitivity,
        form.labels,
        encoders,
        terms=project.catalog.model(name).uses_terms,
    )
    data = _summary(
        name,
        model_file.relative_to(project.root),
        metadata,
        labelled,
        left_out=len(examples) - len(kept),
        nearly_golden=_nearly_golden(project, kept, list(golden_texts.values())),
    )
    if as_json:
        print_json(data)
    else:
        _print(step, data)


def model_to_train(project: Project, step: str, wanted: str | None) -> str:
    """Return the model to train. Raises Misuse where there is none, or several and no choice."""
    if wanted:
        if project.catalog.model(wanted).learned != step:
            raise Misuse(f"{wanted} is not a model with `learned: {step}`")
        return wanted
    names = [
        model.name for model in project.catalog.models.values() if model.learned == step
    ]
    if not names:
        # Only this message needs a date.
        import datetime

        entry = ENTRY.format(step=step, today=datetime.date.today())
        raise Misuse(
            f"no model in routing_rules/catalog.yaml has `learned: {step}`; "
            f"add one under `models`:\n\n{entry}"
        )
    if len(names) > 1:
        choices = ", ".join(names)
        raise Misuse(
            f"several models have `learned: {step}`; choose one by --model: {choices}"
        )
    return names[0]


def form_of_step(project: Project, step: str) -> Form:
    """Return the step's output, with the labels that golden/STEP.yaml gives."""
    from tierwise.gateway.learned.form import form_of
    from tierwise.steps.golden_settings import load_settings

    path = project.root / "golden" / f"{step}.yaml"
    spec = project.load_step(step)
    spec.require_model("train")
    parameters = load_settings(path).parameters
    # The labels may come from a parameter of the step, and a classifier needs them in advance.
    missing = [name for name in spec.choices.values() if name not in parameters]
    if missing:
        raise Misuse(
            f"what may the label be? Write `parameters: {{{missing[0]}: […]}}` into {path}"
        )
    return form_of(spec.schema(parameters))


def _load_examples(
    project: Project, step: str, path: Path, form: Form
) -> Sequence[Example]:
    """Return a file's labelled examples. Raises Misuse for the golden set."""
    from tierwise.steps.examples import load_golden

    golden = project.root / "golden" / f"{step}.jsonl"
    # Resolved, so that a link or ../ does not get around it.
    if path.resolve() == golden.resolve():
        raise Misuse(
            f"{path} is what models are certified on; what is trained on it knows the answers"
        )
    return load_golden(path, at_least=1, allowed={form.field: form.labels}).examples


def _golden_texts(project: Project, step: str) -> dict[str, str]:
    """Return the texts that models are certified on, by their normalised form.

    Raises ConfigError for a vacuous row.
    """
    from tierwise.evidence.certify import golden_faults
    from tierwise.steps.examples import load_golden
    from tierwise.text.terms import normalised

    path = project.root / "golden" / f"{step}.jsonl"
    if not path.exists():
        return {}
    golden = load_golden(path, at_least=0)
    # A row that every answer passes would certify the classifier for nothing.
    for fault in golden_faults(project, step, outcomes_needed=False):
        raise fault
    return {normalised(example.text): example.text for example in golden.examples}


def _nearly_golden(
    project: Project, examples: Sequence[Example], golden_texts: Sequence[str]
) -> list[str]:
    """Return the ids of examples that say nearly the same as a golden text.

    They are found with the embedder of the setting `near_duplicates`; none without it.
    """
    encoder = project.near_duplicate_encoder(os.environ)
    if encoder is None:
        return []
    from tierwise.text.near_duplicates import NearDuplicates

    places = NearDuplicates(golden_texts, encoder).find(
        [example.text for example in examples]
    )
    return [
        example.id
        for example, place in zip(examples, places, strict=True)
        if place is not None
    ]


def open_encoders(project: Project, name: str) -> dict[str, Encoder]:
    """Return the embedders that a model learns from, by their names in the catalog.

    Raises ModelUnavailable with what to fetch or to set.
    """
    encoders: dict[str, Encoder] = {}
    for embedder in project.catalog.model(name).embedder:
        from tierwise.gateway.embedders import open_embedder

        encoders[embedder] = open_embedder(
            project.catalog, embedder, os.environ, rules=project.rules
        )
    return encoders


def _train_if_changed(
    path: Path,
    labelled: Sequence[Labelled],
    sensitivity: Any,
    labels: Sequence[str],
    encoders: Mapping[str, Encoder],
    *,
    terms: bool,
) -> ClassifierMetadata:
    """Train the classifier, unless the file has the same one already; return its metadata."""
    from tierwise.cli.progress import status
    from tierwise.evidence.training.train import identity_before, labels_left_out
    from tierwise.evidence.training.train import train as fit
    from tierwise.gateway.learned import load, save

    try:
        # The same examples give the same model, so a file with it is left as it is.
        metadata = load(path).metadata
        identities = [encoder.identity for encoder in encoders.values()]
        identity = identity_before(labelled, embedders=identities, terms=terms)
        if (
            metadata.identity == identity
            and metadata.sensitivity == sensitivity
            and metadata.left_out == labels_left_out(labelled, labels)
            and metadata.thresholds  # missing in classifiers of earlier versions
        ):
            typer.echo("Nothing has changed since it was trained.", err=True)
            return metadata
    except ConfigError:
        pass  # the file is missing, damaged, or of another version: train
    with status(f"training on {plural(len(labelled), 'example')}"):
        classifier = fit(
            labelled,
            sensitivity=sensitivity,
            labels=labels,
            encoders=encoders,
            terms=terms,
        )
    return save(classifier, path)


def _summary(
    name: str,
    path: Path,
    metadata: ClassifierMetadata,
    labelled: Sequence[Labelled],
    *,
    left_out: int,
    nearly_golden: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the trained classifier as plain data."""
    # Counted from the examples; the metadata has the labels, but not how many of each.
    counts = Counter(example.label for example in labelled)
    return {
        "model": name,
        "file": str(path),
        "identity": metadata.identity,
        "sensitivity": metadata.sensitivity,
        "examples": metadata.n,
        "left_out": left_out,
        "nearly_golden": list(nearly_golden),
        "labels": {label: counts[label] for label in metadata.labels},
        "labels_left_out": {label: counts[label] for label in metadata.left_out},
        # The first point is that of all answers; the others are those with a higher confidence.
        "accuracy": metadata.surest[0].accuracy,
        "surest": [asdict(point) for point in metadata.surest],
    }


def _print(step: str, data: dict[str, Any]) -> None:
    """Print the training set, the cross-validated accuracy, and the next command."""
    model = data["model"]
    left_out = data["left_out"]
    labels = ", ".join(f"{label} {count}" for label, count in data["labels"].items())
    typer.echo(f"{model}: trained on {data['examples']} examples ({labels})")
    if left_out:
        typer.echo(
            f"Left out: {left_out} that golden/{step}.jsonl has, on which it is certified"
        )
    alike = data["nearly_golden"]
    if alike:
        repeats = "repeats" if len(alike) == 1 else "repeat"
        typer.echo(
            f"{plural(len(alike), 'example')} nearly {repeats} a text of golden/{step}.jsonl, such as "
            f"{alike[0]}. Texts that were written from each other make the accuracy that certify "
            "measures too good: take them out of one of the two files."
        )
    for label, count in data["labels_left_out"].items():
        typer.echo(
            f"Too few examples of {label} ({count}): {model} never answers it. "
            "Its documents are for the next models of the route; label 3 to teach it."
        )
    rows = []
    for point in data["surest"]:
        row = {
            "the surest": f"{point['share']:.0%}",
            "confidence": f"{point['confidence']:.2f} and more",
            "right": f"{point['accuracy']:.1%}",
        }
        rows.append(row)
    typer.echo("On examples that it was not trained on (cross-validation):")
    print_table(rows)
    typer.echo(
        f"{data['file']} contains words of the examples: "
        f"keep it as {data['sensitivity']} as they are."
    )
    typer.echo(f"Next: tierwise certify {step} --models {model}")
