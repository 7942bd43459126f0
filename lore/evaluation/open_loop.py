"""Predictions of the world model as pictures: half a sequence filtered from observations, half from actions alone."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from lore.dreamer.nets import ImageDecoder
from lore.dreamer.types import Latent

if TYPE_CHECKING:
    from lore.dreamer.world_model import WorldModel
    from lore.training.metrics import Sink
    from lore.training.run import Training

__all__ = ["draw", "predict", "write_open_loop"]

TAG = "report/openloop"
_SEQUENCES = 6
_CELL = 6
"""Pixels of one cell of a symbolic view."""
_STRIP = 3
_SEEN, _DREAMT = (40, 200, 40), (220, 40, 40)


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


def _palette(targets: int) -> np.ndarray:
    """uint8 [targets, 3]: black for nothing, then colours that lie far apart."""
    hues = [(i * 0.618034) % 1.0 for i in range(targets - 1)]
    colours = [colorsys.hsv_to_rgb(h, 0.45 + 0.5 * (i % 2), 0.95 - 0.3 * (i % 3) / 2) for i, h in enumerate(hues)]
    return (255 * np.array([(0.0, 0.0, 0.0), *colours])).astype(np.uint8)


def _paint(ids: np.ndarray, view: tuple[int, int], palette: np.ndarray) -> np.ndarray:
    """Cell ids [B, T, H*W] -> frames uint8 [B, T, H*px, W*px, 3]."""
    cells = palette[ids].reshape(*ids.shape[:2], *view, 3)
    return cells.repeat(_CELL, 2).repeat(_CELL, 3)


def draw(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Frames [B, T, H, W, 3] twice -> uint8 [T, strip + 3H, B*W, 3]: truth over prediction over error.

    A strip on top is green while the model sees and red while it dreams.
    """
    error = np.abs(truth.astype(np.int16) - predicted.astype(np.int16)).astype(np.uint8)
    rows = np.concatenate([truth, predicted, error], 2)  # [B, T, 3H, W, 3]
    steps = rows.shape[1]
    film = rows.transpose(1, 2, 0, 3, 4).reshape(steps, rows.shape[2], -1, 3)
    strip = np.empty((steps, _STRIP, film.shape[2], 3), np.uint8)
    strip[: steps // 2], strip[steps // 2 :] = _SEEN, _DREAMT
    return np.concatenate([strip, film], 1)


def write_open_loop(run: Training, sink: Sink) -> bool:
    """Animate up to six stored sequences under ``report/openloop``; False when nothing can be shown yet.

    It draws from generators of its own: a run with these pictures ends exactly as one without.
    """
    length = run.replay.length - 1  # windows of the training length would be taken from the online queue
    if sink.writer is None or run.replay.items(length) == 0:
        return False
    model, layout = run.policy.agent.world_model, run.policy.environment.layout
    names = (model.key, "action", "is_first", "is_last", "is_terminal", "deter", "stoch")
    records = run.replay.sample(_SEQUENCES, length, np.random.default_rng(run.env_steps), only=names)
    truth, predicted = predict(
        model, records, run.policy.device, Generator(run.policy.device).manual_seed(run.env_steps)
    )
    if model.key == "state":
        palette, view = _palette(len(run.policy.environment.vocab.targets)), (layout.height, layout.width)
        truth, predicted = _paint(truth, view, palette), _paint(predicted, view, palette)
    sink.animation(TAG, draw(truth, predicted), run.env_steps)
    return True
