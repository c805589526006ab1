"""`python -m gapless.cli`."""

from gapless.cli import main

main()
