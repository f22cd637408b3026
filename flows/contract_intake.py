"""Read a folder of contracts: key terms with their quotations, a summary, and how risky each is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.classify import classify
from tasks.extract import Facts, Quoted, extract
from tasks.summarize import summarize
from tierwise import (
    RunSummary,
    Sensitivity,
    read_documents,
    recorded_run,
    task_runner,
    write_documents,
)

RISKS = {
    "low": "ordinary terms, liability is limited, easy to leave",
    "medium": "one unusual duty, a long term, or a clause that is missing or unclear",
    "high": "unlimited liability, heavy penalties, or a term that cannot be left",
}


class ContractTerms(Facts):
    """What the register of contracts needs."""

    first_party: Quoted = Field(description="the full name of the first party")
    second_party: Quoted = Field(description="the full name of the second party")
    effective_date: Quoted = Field(
        description="the date on which the contract takes effect, as written"
    )
    governing_law: Quoted = Field(description="whose law governs the contract")
    term: Quoted = Field(description="how long the contract runs")


@flow(name="contract-intake", task_runner=task_runner())
def contract_intake(
    source: Path = Path("examples/contracts"),
    sensitivity: Sensitivity = "internal",
    budget_usd: Annotated[float, Field(ge=0, le=10_000)] = 1.0,
    out: Path = Path("out/contracts"),
    only_new: bool = False,
    shard: str = "1/1",
    within: timedelta | None = None,
    detach: bool = False,
) -> RunSummary:
    """Read a folder of contracts: key terms with their quotations, a summary, and how risky each is.

    Args:
        source: a folder or file of contracts.
        sensitivity: of contracts that do not say it themselves; they can only say a higher one.
        budget_usd: no call is made that could spend more than this in all.
        out: folder for the results, one file a contract and one line each in outcomes.jsonl.
        only_new: leave out contracts that an earlier run brought to an end; for a folder that is watched.
        shard: the part of the contracts that this run takes, such as 2/8; each part has an `out` of its own.
        within: the time until the results are needed, such as 6h (PT6H in Prefect); it allows provider batches.
        detach: end once all calls are in provider batches; the next start of the flow, or `tierwise resume`, continues.
    """
    with recorded_run(budget_usd=budget_usd, within=within, detach=detach) as run:
        contracts = read_documents(
            source, sensitivity=sensitivity, only_new=only_new, shard=shard
        )
        terms = extract.map(
            contracts,
            returns=ContractTerms,
            fields=ContractTerms.questions(),
        )
        digests = summarize.map(terms, max_words=90)
        risks = classify.map(digests, labels=list(RISKS), descriptions=RISKS)
        write_documents(risks, out)
    return run.summary()
