"""Readers: the bytes of a file become text, a format a module."""
