"""``python -m vecstore.cli``."""

from vecstore.cli import main

main()
