"""Predictions of the world model as pictures: half a sequence filtered from observations, half from actions alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from lore.dreamer.nets import ImageDecoder
from lore.dreamer.types import Latent
from lore.evaluation.tiles import SIZE, paint

if TYPE_CHECKING:
    from lore.dreamer.world_model import WorldModel
    from lore.training.run import Training
    from lore.training.sinks import Sinks

__all__ = ["MARGIN", "STRIP", "draw", "predict", "write_open_loop"]

TAG = "report/openloop"
_SEQUENCES = 6
STRIP, MARGIN = 14, 40
"""Pixels for the words above and beside the pictures."""
_SEEN, _DREAMT = (24, 120, 40), (170, 30, 30)


@torch.no_grad()
def predict(
    model: WorldModel, records: Mapping[str, Any], device: torch.device, generator: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(truth, prediction) of records [B, 1+T, ...]: frames uint8 [B, T, H, W, 3], or cell ids int64 [B, T, cells].

    The first T // 2 predictions are reconstructions under the posterior, the others follow from actions alone.
    """
    tensors = {k: torch.as_tensor(v).to(device) for k, v in records.items() if k != "indices"}
    batch, start = model.split_context(tensors)
    truth = batch[model.key]
    half = truth.shape[1] // 2
    shape = truth.shape[1], len(truth), model.size.stoch
    uniform = torch.rand(shape, generator=generator, device=device)
    seen = model.rssm.observe(
        model.encode(truth[:, :half]), batch["prev_action"][:, :half], batch["is_first"][:, :half], start,
        uniform[:half],
    )  # fmt: skip
    here = Latent(seen.latent.deter[:, -1], seen.latent.stoch[:, -1])
    deter, stoch = [seen.latent.deter], [seen.latent.stoch]
    for t in range(half, truth.shape[1]):
        here = model.rssm.imagine_step(here, batch["prev_action"][:, t], uniform[t])
        deter.append(here.deter[:, None])
        stoch.append(here.stoch[:, None])
    latent = Latent(torch.cat(deter, 1), torch.cat(stoch, 1))
    if isinstance(model.decoder, ImageDecoder):
        frames = model.decoder(latent.deter, latent.stoch.flatten(-2))
        return truth.cpu().numpy(), (frames * 255.0).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return _host(model.decoder.codec.cell_ids(truth)), _host(model.decoder.reconstruct(latent.features()))


def _host(ids: Tensor) -> np.ndarray:
    return ids.cpu().numpy()


def draw(truth: np.ndarray, predicted: np.ndarray, wrong: np.ndarray | None = None) -> np.ndarray:
    """Frames [B, T, H, W, 3] twice -> uint8 [T, strip + 3H, margin + B*W, 3]: truth over prediction over error.

    A strip on top is green and says so while the model sees, red while it dreams; the margin names the rows. ``wrong``:
    pictures [B, T, H, W, 3] for the third row, the difference of the colours by default.
    """
    if wrong is None:
        wrong = np.abs(truth.astype(np.int16) - predicted.astype(np.int16)).astype(np.uint8)
    rows = np.concatenate([truth, predicted, wrong], 2)  # [B, T, 3H, W, 3]
    steps, height = rows.shape[1], truth.shape[2]
    film = rows.transpose(1, 2, 0, 3, 4).reshape(steps, rows.shape[2], -1, 3)
    film = np.pad(film, ((0, 0), (STRIP, 0), (MARGIN, 0), (0, 0)), constant_values=24)
    for t, frame in enumerate(film):
        sees = t < steps // 2
        words = {STRIP // 2: f"step {t + 1} of {steps}: the model {'sees' if sees else 'dreams, from actions alone'}"}
        frame[:STRIP] = _SEEN if sees else _DREAMT
        words |= {STRIP + height // 2 + k * height: name for k, name in enumerate(("truth", "model", "error"))}
        frame[:] = _written(frame, words)
    return film


def _written(frame: np.ndarray, words: Mapping[int, str]) -> np.ndarray:
    """A frame with white words at its left, by the height of their middle."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(frame)
    pen = ImageDraw.Draw(image)
    for y, text in words.items():
        pen.text((3, y), text, fill=(255, 255, 255), anchor="lm")
    return np.asarray(image)


def _tiles(ids: np.ndarray, environment: str) -> np.ndarray:
    """Cell ids [B, T, cells] as the game's own tiles, 8 pixels wide: uint8 [B, T, 8 H, 8 W, 3]."""
    return paint(ids, environment)[..., ::2, ::2, :]


def write_open_loop(run: Training, sink: Sinks) -> bool:
    """Animate up to six stored sequences under ``report/openloop``; False when nothing can be shown yet.

    It draws from generators of its own: a run with these pictures ends exactly as one without.
    """
    length = run.replay.length - 1  # windows of the training length would be taken from the online queue
    if not sink.shows_pictures or run.replay.items(length) == 0:
        return False
    model, layout = run.policy.agent.world_model, run.policy.environment.layout
    names = (model.key, "action", "is_first", "is_last", "is_terminal", "deter", "stoch")
    records = run.replay.sample(_SEQUENCES, length, np.random.default_rng(run.env_steps), only=names)
    truth, predicted = predict(
        model, records, run.policy.device, Generator(run.policy.device).manual_seed(run.env_steps)
    )
    wrong = None
    if model.key == "state":
        name = run.policy.environment.name
        differs = (truth != predicted).reshape(*truth.shape[:2], layout.height, layout.width, 1)
        truth, predicted = _tiles(truth, name), _tiles(predicted, name)
        wrong = np.where(differs.repeat(SIZE // 2, 2).repeat(SIZE // 2, 3), truth, truth // 6)
    sink.animation(TAG, draw(truth, predicted, wrong), run.env_steps)
    return True
