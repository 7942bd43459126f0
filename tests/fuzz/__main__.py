"""``make fuzz SECONDS=60``: the targets of this folder with new examples until the time is over or one fails.

What failed is kept in ``.hypothesis`` and tried first by the next call; put it beside its target as an ``@example``.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent


def main(seconds: float) -> int:
    """The code of the first round that failed, or 0; a round that has begun is ended."""
    began, rounds = time.monotonic(), 0
    words = [sys.executable, "-m", "pytest", str(FOLDER), "-q", "-m", "", "--timeout", "3600", "-p", "no:cacheprovider"]
    words += ["-W", "ignore:Generating overly large repr"]  # an error of its own would hide the one that was found
    environment = {**os.environ, "LORE_FUZZ": "1"}
    while not rounds or time.monotonic() - began < seconds:
        code = subprocess.run(words, cwd=FOLDER.parents[1], env=environment, check=False).returncode
        rounds += 1
        print(f"fuzz: {rounds} rounds in {time.monotonic() - began:.0f} s", flush=True)
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0))
