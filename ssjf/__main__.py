"""``python -m ssjf``."""

from ssjf.cli import main

if __name__ == "__main__":
    main()
