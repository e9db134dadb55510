"""`python -m setrep`."""

from setrep.cli import main

main()
