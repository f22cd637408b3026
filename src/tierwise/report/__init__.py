"""What a run did, what it cost and how good it was: the same figures for the terminal, Prefect, scripts and a page."""

from tierwise.report.summary import Against, RunSummary, document_cells, summarize_run

__all__ = ["Against", "RunSummary", "document_cells", "summarize_run"]
