"""One sink for numbers: TensorBoard, metrics.jsonl and episodes.jsonl of a run; and the Crafter score."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lore.training.records import read_jsonl
from lore_datasets.atomic import write_text

__all__ = ["Means", "Sink", "bootstrap_interval", "crafter_score"]


def crafter_score(success_percent: np.ndarray) -> float:
    """exp(mean ln(1 + s_k)) - 1 with s_k in percent (Hafner 2021, section 4); one seed's rates float[K]."""
    return float(np.exp(np.mean(np.log1p(np.asarray(success_percent, np.float64)))) - 1.0)


def bootstrap_interval(values: np.ndarray, *, statistic=np.mean, n: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a statistic over the first axis; (nan, nan) for no values."""
    values = np.asarray(values, np.float64)
    if len(values) == 0:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    draws = [statistic(values[rng.integers(0, len(values), len(values))], axis=0) for _ in range(n)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


class Means:
    """Running means of scalars between two rows of metrics."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: dict[str, float]) -> None:
        """Take in one value per name; values that are not finite are left out."""
        for name, value in values.items():
            value = float(value)
            if math.isfinite(value):
                self.sums[name] = self.sums.get(name, 0.0) + value
                self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means so far; starts afresh."""
        out = {name: total / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return out

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])


class Sink:
    """Writes rows; on resume it cuts the files back to the rows of the checkpoint, so nothing is reported twice.

    Args:
        folder: the run. step: environment steps of the checkpoint that the run resumes from (0 = fresh).
        tensorboard: also write TensorBoard events.
        rows: rows of each file at that checkpoint; where a file is not named, its rows up to ``step`` are kept.

    Attributes:
        rows: rows written so far, by file.
    """

    FILES = ("metrics.jsonl", "episodes.jsonl")

    def __init__(
        self, folder: Path, step: int = 0, tensorboard: bool = True, rows: Mapping[str, int] | None = None
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows: dict[str, int] = dict.fromkeys(self.FILES, 0)
        found = {name: read_jsonl(self.folder / name) for name in self.FILES}
        for name, kept in found.items():
            path = self.folder / name
            if path.exists():
                # The step alone does not tell: an episode's row and a checkpoint before it can share one.
                kept = kept[: rows[name]] if rows and name in rows else [r for r in kept if step and r["step"] <= step]
                self.rows[name] = len(kept)
                write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self.files = {name: (self.folder / name).open("a") for name in self.FILES}
        self.writer = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=step + 1 if step else 0)

    def row(self, step: int, values: dict[str, float]) -> None:
        """One row of metrics at a step."""
        self._line(
            "metrics.jsonl", {"step": step} | {k: float(f"{v:.6g}") for k, v in values.items() if math.isfinite(v)}
        )
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def episode(self, step: int, episode: dict[str, Any], tags: dict[str, float]) -> None:
        """One finished training episode, with the tags that TensorBoard shows of it."""
        self._line("episodes.jsonl", {"step": step} | episode)
        if self.writer is not None:
            for name, value in tags.items():
                self.writer.add_scalar(name, value, step)

    def animation(self, tag: str, frames: np.ndarray, step: int, fps: int = 8) -> None:
        """uint8 [T, H, W, 3] as an animated image in TensorBoard (a GIF in an image summary: no video package
        needed)."""
        if self.writer is None:
            return
        import io

        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        images, buffer = [Image.fromarray(frame) for frame in frames], io.BytesIO()
        images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=1000 // fps, loop=0)
        height, width = frames.shape[1:3]
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=buffer.getvalue())
        self.writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def _line(self, name: str, row: dict[str, Any]) -> None:
        self.rows[name] += 1
        self.files[name].write(json.dumps(row) + "\n")
        self.files[name].flush()

    def sync(self) -> None:
        """Everything written so far is on disk when this returns."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        if self.writer is not None:
            self.writer.flush()

    def close(self) -> None:
        """Flush and close all files."""
        self.sync()
        for file in self.files.values():
            file.close()
        if self.writer is not None:
            self.writer.close()
