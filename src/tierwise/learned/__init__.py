"""What labels teach without a language model: a classifier at price 0, and the nearest examples for a prompt.

The only door to scikit-learn and skops. A trained classifier is as confidential as the messages it was
trained on: its file holds their words.
"""

from __future__ import annotations

from tierwise.learned.classifier import Classifier, Head, Prediction, Surest
from tierwise.learned.files import load, read_head, save, trained_file
from tierwise.learned.form import Form, form_of
from tierwise.learned.labelled import Labelled, Text, data_hash, load_labelled, normalised, split
from tierwise.learned.neighbours import Neighbours
from tierwise.learned.threshold import Threshold, fit_threshold
from tierwise.learned.training import identity_before, train

__all__ = [
    "Classifier",
    "Form",
    "Head",
    "Labelled",
    "Neighbours",
    "Prediction",
    "Surest",
    "Text",
    "Threshold",
    "data_hash",
    "fit_threshold",
    "form_of",
    "identity_before",
    "load",
    "load_labelled",
    "normalised",
    "read_head",
    "save",
    "split",
    "train",
    "trained_file",
]
