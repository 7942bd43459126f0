"""The table of model sizes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SIZES", "Size"]


@dataclass(frozen=True)
class Size:
    """One row of the model size table; ``deter = 8 * hidden`` and ``depth`` follow danijar/dreamerv3 configs.yaml."""

    deter: int
    hidden: int
    classes: int
    depth: int
    units: int
    stoch: int = 32
    blocks: int = 8


SIZES: dict[str, Size] = {
    "tiny": Size(deter=256, hidden=32, classes=4, depth=4, units=64, stoch=32),
    "1m": Size(512, 64, 4, 4, 64),
    "12m": Size(2048, 256, 16, 16, 256),
    "25m": Size(3072, 384, 24, 24, 384),
    "50m": Size(4096, 512, 32, 32, 512),
    "100m": Size(6144, 768, 48, 48, 768),
    "200m": Size(8192, 1024, 64, 64, 1024),
    "400m": Size(12288, 1536, 96, 96, 1536),
}
