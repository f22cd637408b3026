"""Accepted answers as training data for a fine-tune."""
