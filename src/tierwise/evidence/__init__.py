"""Proof that a model is capable: golden sets, training, certification, judges and replay."""
