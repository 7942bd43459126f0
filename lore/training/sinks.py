"""Where the numbers of a run go: JSON lines always, TensorBoard, and Weights & Biases where it is asked for.

A number enters once, at :class:`Sinks`; what shows it is a :class:`Sink` in :func:`open_sinks`.
"""

from __future__ import annotations

import io
import json
import math
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lore.training.records import read_jsonl
from lore_datasets.atomic import write_text
from lore_datasets.errors import UsageError

__all__ = [
    "FILES",
    "JsonLines",
    "Sink",
    "Sinks",
    "TensorBoard",
    "WeightsAndBiases",
    "check_wandb",
    "open_sinks",
    "write_gif",
]

FILES = ("metrics.jsonl", "episodes.jsonl")
"""What :class:`JsonLines` writes into the folder of a run: rows of metrics, finished training episodes."""


LAYOUT: dict[str, dict[str, list[str]]] = {
    "is it getting better": {
        "return of each episode, mean of the last 20": ["env/episode_return", "env/return_mean20"],
        "score, %": ["env/crafter_score"],
        "length of the episodes": ["env/episode_length"],
    },
    "what the advice does": {
        "weight and trust": [
            "uncertainty_gate/beta",
            "uncertainty_gate/trust",
            "uncertainty_gate/kappa",
            "kickstart/weight",
        ],
        "KL to the own policy, nats": ["uncertainty_gate/avg_kl", "uncertainty_gate/kl_running"],
        "share of the steps held by the advice, and in options": ["uncertainty_gate/held_share", "options/step_share"],
        "where the advice comes from": [
            f"llm_adapter/coverage_{s}" for s in ("row", "program", "goal", "model", "none")
        ],
        "regret, and agreement with it": ["uncertainty_gate/advice_regret", "kickstart/agreement"],
    },
    "does it learn": {
        "world model": ["loss/dyn", "loss/rep", "loss/state", "loss/image", "loss/rew", "loss/con"],
        "actor and critic": ["loss/policy", "loss/value", "loss/repval"],
        "updates and speed": ["opt/updates", "fps/policy"],
    },
}
"""TensorBoard's page of custom scalars: page -> title -> tags that share a chart."""


class Sink(Protocol):
    """One place that shows numbers. ``step``: environment steps so far; tags are ``group/name``."""

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """One row of metrics."""
        ...

    def episode(self, step: int, episode: Mapping[str, Any], tags: Mapping[str, float]) -> None:
        """One finished training episode, and the tags that charts show of it."""
        ...

    def animation(self, tag: str, frames: np.ndarray, step: int) -> None:
        """uint8 [T, H, W, 3] as a moving picture."""
        ...

    def sync(self) -> None:
        """Everything written so far is kept when this returns; called before every checkpoint."""
        ...

    def close(self) -> None:
        """Sync and let go of files and processes."""
        ...


class JsonLines:
    """Rows as JSON lines; on resume the files are cut back to the rows of the checkpoint: nothing is reported twice.

    Args:
        folder: the run. step: environment steps of the checkpoint that the run resumes from (0 = fresh).
        rows: rows of each file at that checkpoint; where a file is not named, its rows up to ``step`` are kept.

    Attributes:
        rows: rows written so far, by file.
    """

    def __init__(self, folder: Path | str, step: int = 0, rows: Mapping[str, int] | None = None) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.rows: dict[str, int] = dict.fromkeys(FILES, 0)
        found = {name: read_jsonl(folder / name) for name in FILES}
        for name, kept in found.items():
            path = folder / name
            if path.exists():
                # The step alone does not tell: an episode's row and a checkpoint before it can share one.
                kept = kept[: rows[name]] if rows and name in rows else [r for r in kept if step and r["step"] <= step]
                self.rows[name] = len(kept)
                write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self.files = {name: (folder / name).open("a") for name in FILES}

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """One line of ``metrics.jsonl``; values that are not finite are left out."""
        self._line(FILES[0], {"step": step} | {k: float(f"{v:.6g}") for k, v in values.items() if math.isfinite(v)})

    def episode(self, step: int, episode: Mapping[str, Any], tags: Mapping[str, float]) -> None:
        """One line of ``episodes.jsonl``."""
        self._line(FILES[1], {"step": step} | dict(episode))

    def animation(self, tag: str, frames: np.ndarray, step: int) -> None:
        """Nothing: these files hold numbers."""

    def _line(self, name: str, row: dict[str, Any]) -> None:
        self.rows[name] += 1
        self.files[name].write(json.dumps(row) + "\n")
        self.files[name].flush()

    def sync(self) -> None:
        """The lines are on the disk when this returns."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Sync and close both files."""
        self.sync()
        for file in self.files.values():
            file.close()


class TensorBoard:
    """Events in the folder of the run.

    Args:
        folder: the run. step: events after it are purged, all at 0; None purges nothing.
        settings: of the run, for the page of hyperparameters; told where the folder holds no events yet, and at 0.
    """

    def __init__(self, folder: Path | str, step: int | None = 0, settings: Mapping[str, Any] | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = None if step is None else step + 1 if step else 0
        is_new = step == 0 or not any(Path(folder).glob("events.out.tfevents*"))  # as that of a fork
        self.writer = SummaryWriter(str(folder), purge_step=purge)
        if is_new and settings:
            self._describe(settings)

    def _describe(self, settings: Mapping[str, Any]) -> None:
        """Lay the page of custom scalars out, and tell the page of hyperparameters the settings."""
        from torch.utils.tensorboard.summary import hparams

        self.writer.add_custom_scalars({
            page: {title: ["Multiline", [f"^{tag}$" for tag in tags]] for title, tags in charts.items()}
            for page, charts in LAYOUT.items()
        })  # fmt: skip
        told = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in settings.items()}
        for summary in hparams(told, dict.fromkeys(("env/return_mean20", "env/crafter_score"), 0.0)):
            self.writer._get_file_writer().add_summary(summary)

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """A point per scalar."""
        for name, value in values.items():
            if math.isfinite(value):
                self.writer.add_scalar(name, value, step)

    def episode(self, step: int, episode: Mapping[str, Any], tags: Mapping[str, float]) -> None:
        """A point per tag."""
        self.row(step, tags)

    def animation(self, tag: str, frames: np.ndarray, step: int) -> None:
        """A GIF in an image summary: no video package needed."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        height, width = frames.shape[1:3]
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=_gif(frames).getvalue())
        self.writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def sync(self) -> None:
        """Flush the events."""
        self.writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self.writer.close()


class WeightsAndBiases:
    """A W&B run in ``wandb/`` of the folder, offline unless ``WANDB_MODE`` says otherwise.

    Rows wait for the next checkpoint before they are sent, because W&B takes nothing back: what a kill throws away is
    played again and would stand there twice. A resumed run goes on under the id that it had, in another part; ``wandb
    sync`` brings the parts to a server.

    Args:
        folder: the run; its name is the run's. settings: of the run, as W&B shows them.
    """

    def __init__(self, folder: Path | str, settings: Mapping[str, Any]) -> None:
        wandb = check_wandb()
        home = Path(folder).absolute()
        (home / "wandb").mkdir(parents=True, exist_ok=True)
        known = home / "wandb" / "id.txt"
        if not known.exists():
            write_text(known, secrets.token_hex(4))
        self._video, self._waiting = wandb.Video, list[tuple[int, dict[str, Any]]]()
        quiet = wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True, x_disable_meta=True
        )
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "lore"), name=home.name, id=known.read_text().strip(),
            resume="allow", dir=str(home), config=dict(settings), mode=os.environ.get("WANDB_MODE", "offline"),
            settings=quiet,
        )  # fmt: skip

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """The finite values wait for :meth:`sync`."""
        self._waiting.append((step, {name: value for name, value in values.items() if math.isfinite(value)}))

    def episode(self, step: int, episode: Mapping[str, Any], tags: Mapping[str, float]) -> None:
        """The tags wait for :meth:`sync`."""
        self.row(step, tags)

    def animation(self, tag: str, frames: np.ndarray, step: int) -> None:
        """A GIF, as a W&B video."""
        self._waiting.append((step, {tag: self._video(_gif(frames), format="gif")}))

    def sync(self) -> None:
        """Send what waits."""
        for step, values in self._waiting:
            self.run.log(values, step=step)
        self._waiting.clear()

    def close(self) -> None:
        """Send what waits and end this part of the W&B run."""
        self.sync()
        self.run.finish()


def check_wandb() -> Any:
    """The ``wandb`` package; UsageError names the extra where it is missing."""
    try:
        import wandb
    except ImportError:
        raise UsageError(
            "train.wandb needs wandb",
            kept="nothing was started",
            hint="pip install -e '.[wandb]' in LoRe's folder, or leave it away",
        ) from None
    return wandb


class Sinks:
    """All sinks of a run as one.

    Attributes:
        rows: lines written so far, by file, which a checkpoint remembers.
        shows_pictures: somebody beside the files of lines is there to show them.
    """

    def __init__(self, lines: JsonLines, others: Sequence[Sink] = ()) -> None:
        self.all: tuple[Sink, ...] = (lines, *others)
        self.rows, self.shows_pictures = lines.rows, bool(others)

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """One row of metrics at a step."""
        self._each(lambda sink: sink.row(step, values))

    def episode(self, step: int, episode: Mapping[str, Any], tags: Mapping[str, float]) -> None:
        """One finished training episode, with the tags that charts show of it."""
        self._each(lambda sink: sink.episode(step, episode, tags))

    def animation(self, tag: str, frames: np.ndarray, step: int) -> None:
        """uint8 [T, H, W, 3] as a moving picture."""
        self._each(lambda sink: sink.animation(tag, frames, step))

    def sync(self) -> None:
        """Everything written so far is kept when this returns."""
        self._each(lambda sink: sink.sync())

    def close(self) -> None:
        """Sync and close all."""
        self._each(lambda sink: sink.close())

    def _each(self, call: Callable[[Sink], None]) -> None:
        for sink in self.all:
            call(sink)


def open_sinks(
    folder: Path | str, step: int = 0, rows: Mapping[str, int] | None = None, *, tensorboard: bool = True,
    settings: Mapping[str, Any] | None = None, wandb: Mapping[str, Any] | None = None,
) -> Sinks:  # fmt: skip
    """The sinks of a run that stands at ``step`` with ``rows`` on disk; ``settings``: its own by dotted name, for
    TensorBoard; ``wandb``: by section, None for no W&B."""
    others: list[Sink] = [TensorBoard(folder, step, settings)] if tensorboard else []
    return Sinks(JsonLines(folder, step, rows), others + ([WeightsAndBiases(folder, wandb)] if wandb else []))


def write_gif(frames: Iterable[np.ndarray], file: Any, fps: int = 8) -> None:
    """Frames uint8 [H, W, 3] as an animated GIF, one after another, each with 128 colours of its own."""
    from PIL import Image

    pictures = (Image.fromarray(f).quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) for f in frames)
    next(pictures).save(file, "GIF", save_all=True, append_images=pictures, duration=1000 // fps, loop=0)


def _gif(frames: np.ndarray) -> io.BytesIO:
    """uint8 [T, H, W, 3] -> an animated GIF, ready to be read."""
    buffer = io.BytesIO()
    write_gif(frames, buffer)
    buffer.seek(0)
    return buffer
