"""`python -m maebench` is the command `maebench`."""

from maebench.cli import main

main()
