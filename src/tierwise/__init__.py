"""tierwise: batch document workflows whose steps each go to the cheapest model shown capable."""

__version__ = "0.1.0"
