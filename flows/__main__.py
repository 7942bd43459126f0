"""``python -m flows`` is ``lore``."""

import sys

from flows.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
