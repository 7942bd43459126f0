"""``python -m benchmarks``: every benchmark, one after the other."""

import sys

from benchmarks import http_backends, rules_play, speed, storage
from benchmarks.record import write

if __name__ == "__main__":
    code = speed.main([])
    code = http_backends.main([]) or code
    code = storage.main([]) or code
    write("rules_play", rules_play.measure(40, 100))
    sys.exit(code)
