"""Trained classifiers as models at price 0. The only door to skops.

A trained classifier is as confidential as the messages it was trained on: its file holds their words.
"""

from __future__ import annotations

from tierwise.gateway.learned.classifier import (
    Classifier,
    ClassifierMetadata,
    CoveragePoint,
    Prediction,
)
from tierwise.gateway.learned.files import load, read_metadata, save, trained_file
from tierwise.gateway.learned.form import Form, form_of

__all__ = [
    "Classifier",
    "Form",
    "ClassifierMetadata",
    "Prediction",
    "CoveragePoint",
    "form_of",
    "load",
    "read_metadata",
    "save",
    "trained_file",
]
