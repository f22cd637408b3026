"""The flows of the desk's post."""
