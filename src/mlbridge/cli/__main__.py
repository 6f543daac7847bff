"""`python -m mlbridge.cli`."""

from . import main

main()
