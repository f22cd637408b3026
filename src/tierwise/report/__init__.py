"""A run's results, cost and quality, as figures for the terminal, Prefect, scripts and a page."""

from tierwise.report.summary import (
    PlanComparison,
    RunSummary,
    document_cells,
    summarize_run,
)

__all__ = ["PlanComparison", "RunSummary", "document_cells", "summarize_run"]
