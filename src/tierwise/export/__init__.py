"""Accepted answers as training data for fine-tuning."""
