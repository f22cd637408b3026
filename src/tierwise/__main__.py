"""`python -m tierwise` is the command line."""

from tierwise.cli import main

main()
