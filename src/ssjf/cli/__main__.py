"""``python -m ssjf.cli``."""

from ssjf.cli import main

main()
