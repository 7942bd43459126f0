"""What a save of a pixel run costs as its replay grows to a million records of a size.

``python -m benchmarks.saving``: a replay as large as the run's, its records all zero (only what is written and
refreshed between two saves takes memory), one environment, some updates a save. ``hold_up_s`` is how long training
stands still, ``seconds`` how long the save takes in all, ``interval_s`` what follows from it until the next one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import spread, write

__all__ = ["main", "measure"]


def measure(size: str, steps: Sequence[int], records: int, updates: int, saves: int) -> dict[str, Any]:
    """Seconds and bytes of a save at some ``steps``, with ``records`` new ones and ``updates`` of 16 x 64 since the
    last; the first three saves of each step are not counted."""
    import numpy as np

    from lore.replay.ring import Replay, latent_fields
    from lore.sizes import SIZES
    from lore.training.saver import Saver

    fields: dict[str, Any] = {
        "state": ((100,), np.uint8), "image": ((64, 64, 3), np.uint8), "action": ((), np.int64),
        "reward": ((), np.float32), "is_first": ((), np.bool_), "is_last": ((), np.bool_),
        "is_terminal": ((), np.bool_), **latent_fields(SIZES[size].deter, SIZES[size].stoch),
    }  # fmt: skip
    rng, out = np.random.default_rng(0), {}
    record = {name: np.zeros(shape, dtype) for name, (shape, dtype) in fields.items()}
    for step in steps:
        with tempfile.TemporaryDirectory(prefix="lore-saving-") as folder:
            replay = Replay(fields, max(steps), length=65, online=False)
            writer = Saver(Path(folder) / "checkpoint", 0.0)
            replay.written[:] = step
            writer.segments.saved = replay.written.copy()  # as if the saves before had written them
            seconds, holds, files = [], [], []
            for _ in range(3 + saves):
                for _ in range(records):
                    replay.add(0, record)
                for _ in range(updates):
                    windows = replay.sample(16, rng=rng, only=("action",))["indices"]
                    replay.write_back(windows, np.zeros((16, 64, SIZES[size].deter), np.float16),
                                      np.zeros((16, 64, SIZES[size].stoch), np.uint8))  # fmt: skip
                before = {path.name for path in Path(folder).rglob("*.safetensors")}
                began = time.perf_counter()
                writer.save({}, {"replay": replay.cursors()}, replay, is_beside=True)
                holds.append(time.perf_counter() - began)
                writer.finish()
                seconds.append(writer.seconds)
                new = [p for p in Path(folder).rglob("*.safetensors") if p.name not in before]
                files.append(sum(p.stat().st_size for p in new))
            writer.seconds = spread(seconds[3:])["median"]
            interval = writer.pause_s()
            out[f"{step}"] = {
                "seconds": spread(seconds[3:]), "hold_up_s": spread(holds[3:]), "bytes": spread(files[3:]),
                "interval_s": interval, "hold_up_share": spread(holds[3:])["median"] / interval,
            }  # fmt: skip
    whole = Replay.bytes_needed(fields, max(steps))
    return {"size": size, "records": records, "updates": updates, "replay_bytes": whole, "steps": out}


def main(words: list[str]) -> int:
    """Measure and write ``saving.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.saving", description=__doc__)
    parser.add_argument("--size", default="12m")
    parser.add_argument("--steps", type=int, nargs="+", default=[100_000, 500_000, 1_000_000])
    parser.add_argument("--records", type=int, default=600)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--saves", type=int, default=5)
    options = parser.parse_args(words)
    found = measure(options.size, options.steps, options.records, options.updates, options.saves)
    path = write("saving", found)
    print(path.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
