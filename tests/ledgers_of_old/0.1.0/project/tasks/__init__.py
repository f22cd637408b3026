"""The steps of the desk's post."""
