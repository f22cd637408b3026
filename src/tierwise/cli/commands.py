"""The table of all commands.

A row is everything that `tierwise --help` needs. The module that does the work is imported when
the command runs, or when its own help is asked for. To add a command, write its module in this
folder and add its row here.
"""

from __future__ import annotations

from typing import NamedTuple

RUN = "Run"
INSPECT = "Inspect"
DECIDE = "Decide"
PROVE = "Prove"
OPERATE = "Operate"
AUTHOR = "Author"


class Command(NamedTuple):
    """One command, or one group of commands such as `tierwise audit`."""

    name: str
    place: str  # module:function in this folder, or module:group
    panel: str
    help: str  # one line of the table; also the first line of the function's docstring
    # the options after FLOW are the flow's own parameters
    takes_flow_options: bool = False
    # the least severe of Prefect's log lines that are printed: those of a run would fall between
    # its progress bars
    prefect_log: str = "ERROR"
    # a server that PREFECT_API_URL names in vain is worth a note
    uses_server: bool = False
    # it makes calls, so that a signal stops it as Ctrl-C does: what is paid comes on record
    makes_calls: bool = False


COMMANDS = (
    Command(
        "run",
        "run:run",
        RUN,
        "Run a flow over documents, and show its results and cost.",
        takes_flow_options=True,
        prefect_log="CRITICAL",
        uses_server=True,
        makes_calls=True,
    ),
    Command(
        "plan",
        "plan:plan",
        RUN,
        "Estimate what a run will do and cost, without a call.",
        takes_flow_options=True,
        prefect_log="CRITICAL",
        makes_calls=True,  # with --sample
    ),
    Command(
        "retry",
        "retry:retry",
        RUN,
        "Run a flow again for the documents it deferred.",
        prefect_log="CRITICAL",
        uses_server=True,
        makes_calls=True,
    ),
    Command(
        "resume",
        "resume:resume",
        RUN,
        "Continue a run whose calls are in provider batches.",
        prefect_log="CRITICAL",
        uses_server=True,
        makes_calls=True,
    ),
    Command(
        "show", "show:show", INSPECT, "Show the cost, quality and deferrals of one run."
    ),
    Command("runs", "runs:runs", INSPECT, "List the recorded runs, newest first."),
    Command(
        "report",
        "report:report",
        INSPECT,
        "Write an HTML report about one run or a period.",
    ),
    Command(
        "explain", "explain:explain", INSPECT, "Explain why a document went to a model."
    ),
    Command(
        "budgets", "budgets:budgets", INSPECT, "Show budgets, and add money to one."
    ),
    Command(
        "review",
        "review:review",
        DECIDE,
        "Approve, edit or reject the deferred answers.",
    ),
    Command("label", "label:label", DECIDE, "Label sampled answers as right or wrong."),
    Command(
        "golden",
        "golden:golden",
        DECIDE,
        "Turn reviewed answers into labelled examples.",
    ),
    Command(
        "check", "check:check", PROVE, "Check all project files, and prove the guards."
    ),
    Command(
        "certify",
        "certify:certify",
        PROVE,
        "Measure models and write their certificates.",
        makes_calls=True,
    ),
    Command(
        "canaries",
        "canaries:canaries",
        PROVE,
        "Restore or void suspended certificates.",
        makes_calls=True,
    ),
    Command(
        "train", "train:train", PROVE, "Train a step's local classifier from examples."
    ),
    Command(
        "distil",
        "distil:distil",
        PROVE,
        "Train a classifier on a strong model's answers, within a budget.",
        makes_calls=True,
    ),
    Command("diff", "diff:diff", PROVE, "Compare two rules files on past decisions."),
    Command("replay", "replay:replay", PROVE, "Simulate routing on recorded outcomes."),
    Command(
        "calibrate",
        "calibrate:calibrate",
        PROVE,
        "Measure the token price of your server.",
    ),
    Command(
        "doctor",
        "doctor:doctor",
        OPERATE,
        "Check that this machine can run the project.",
        uses_server=True,
    ),
    Command(
        "models",
        "models:models",
        OPERATE,
        "List all models, their host, availability and price.",
    ),
    Command(
        "fetch",
        "fetch:fetch",
        OPERATE,
        "Download the weights of embedded models and embedders.",
    ),
    Command(
        "up",
        "up:up",
        OPERATE,
        "Start Prefect's server, a worker and the deployments.",
        prefect_log="WARNING",
    ),
    Command(
        "down",
        "down:down",
        OPERATE,
        "Stop the server and the worker of `tierwise up`.",
        prefect_log="CRITICAL",
    ),
    Command(
        "batches",
        "batches:batches",
        OPERATE,
        "List provider batches, and cancel one.",
    ),
    Command(
        "status",
        "status:status",
        OPERATE,
        "Show what runs, what is late and why, and what waits.",
        prefect_log="CRITICAL",
        uses_server=True,
    ),
    Command(
        "ui",
        "ui:ui",
        OPERATE,
        "Open Prefect's UI on this project's runs.",
        prefect_log="WARNING",
    ),
    Command(
        "desk",
        "desk:desk",
        OPERATE,
        "Serve the desk: pages for reviewers and operators.",
    ),
    Command(
        "audit",
        "audit:audit",
        OPERATE,
        "Export and verify the tamper-evident audit trail.",
    ),
    Command(
        "retention",
        "retention:retention",
        OPERATE,
        "Delete texts, and on request rows, from the ledger.",
    ),
    Command(
        "reprice",
        "reprice:reprice",
        OPERATE,
        "Fill in the cost of recorded calls whose price was unknown.",
    ),
    Command("docs", "docs:docs", AUTHOR, "Show the documentation in the terminal."),
    Command("init", "init:init", AUTHOR, "Create a project from the starter."),
    Command("new", "new:new", AUTHOR, "Add a step or a flow to the project."),
    Command(
        "try",
        "trying:try_step",
        AUTHOR,
        "Try a step's prompt on one document.",
        makes_calls=True,
    ),
    Command(
        "export", "export:export", AUTHOR, "Export accepted answers as training data."
    ),
)
