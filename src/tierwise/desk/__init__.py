"""The desk: a web application for reviewers and operators, and the only door to FastAPI."""
