"""Trained classifiers as models at price 0. The only door to skops.

A trained classifier is as confidential as its training texts: its file has their words.
"""

from __future__ import annotations

from tierwise.gateway.learned.classifier import (
    Classifier,
    ClassifierMetadata,
    CoveragePoint,
    MemberMetadata,
    Prediction,
)
from tierwise.gateway.learned.files import (
    check_embedders,
    check_terms,
    load,
    read_metadata,
    save,
    trained_file,
)
from tierwise.gateway.learned.form import Form, form_of

__all__ = [
    "Classifier",
    "ClassifierMetadata",
    "CoveragePoint",
    "Form",
    "MemberMetadata",
    "Prediction",
    "check_embedders",
    "check_terms",
    "form_of",
    "load",
    "read_metadata",
    "save",
    "trained_file",
]
