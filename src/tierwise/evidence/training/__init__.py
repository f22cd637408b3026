"""Training of small classifiers on labelled examples."""
