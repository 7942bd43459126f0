"""What each compiled form of :mod:`lore.fast` wins: CPU seconds with that form alone left out, over those with all.

Two works on one thread: ``tiny``, one round of the whole loop in the settings of the studies (four steps of the game,
then an update of 8x32 symbolic records), and ``1m``, an update of 4x64 frames. All variants take turns.

``python -m benchmarks.forms [tiny|1m ...]`` writes ``results/forms_NAME.json``; the table of ADR-0010 is made of it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import alternated, write

__all__ = ["VARIANTS", "WORKS", "main", "without"]

ROUNDS = 9
STUDY = {"env.observation": "symbolic", "model.size": "tiny", "train.batch_size": 256, "train.sequence_length": 32}
FRAMES = {"env.observation": "pixels", "model.size": "1m", "train.batch_size": 256, "train.sequence_length": 64}


VARIANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "head": {"CompiledHead": ("forward",), "CompiledTwoHotHead": ("forward",)},
    "two-hot mean and loss": {"CompiledTwoHotHead": ("mean", "loss")},
    "dense layer": {"CompiledLinear": ("forward",)},
    "norm and activation": {"CompiledNormAct": ("forward",)},
    "one-hot layer": {"CompiledOneHotLinear": ("forward",)},
    "filter": {"CompiledRSSM": ("observe",)},
    "step of acting": {"CompiledRSSM": ("observe_step",)},
    "step of imagination": {"CompiledRSSM": ("imagine_step",)},
    "encoder of frames": {"CompiledImageEncoder": ("forward",)},
    "decoder of frames": {"CompiledImageDecoder": ("logits",)},
    "loss of frames": {"CompiledImageDecoder": ("loss",)},
}
"""Name of a form -> compiled class -> methods that go back to those of its plain class."""


def without(network: Any, name: str) -> bool:
    """Give the plain methods of one form back to the modules of an accelerated network; False where it has none."""
    found = False
    for module in network.modules():
        kind = type(module)
        names = VARIANTS[name].get(kind.__name__)
        if names is None:
            continue
        plain = next(base for base in kind.__mro__ if base.__module__.startswith("lore.dreamer"))
        module.__class__ = type(f"Plain{kind.__name__}", (kind,), {method: getattr(plain, method) for method in names})
        found = True
    return found


def _training(settings: dict[str, Any]) -> Any:
    from lore.config import load_config
    from lore.training.run import Training

    batch = settings["train.batch_size"]
    config = load_config(**settings, **{"train.threads": 1, "train.replay_capacity": 3 * batch})
    run = Training(config, Path(tempfile.mkdtemp()))
    run.steps = run.envs.reset()
    while run.replay.items() < config.train.sequences + config.train.sequence_length:
        _play(run)
    return run


def _play(run: Any) -> None:
    actions, records = run.policy.act(run.steps)
    run.replay.add(0, records[0])
    run.steps = run.envs.step(actions)


def tiny() -> dict[str, Callable[[], Any]]:
    """Rounds of the loop by variant."""
    return _works(STUDY, plays=4, updates=2)


def one_m() -> dict[str, Callable[[], Any]]:
    """Updates on frames by variant."""
    return _works(FRAMES, plays=0, updates=1)


def _works(settings: dict[str, Any], plays: int, updates: int) -> dict[str, Callable[[], Any]]:
    """``updates`` rounds of ``plays`` steps and an update in each call."""
    works: dict[str, Callable[[], Any]] = {}
    for name in ("all", *VARIANTS):
        run = _training(settings)
        if name != "all" and not without(run.policy.agent, name):
            continue
        records = {k: np.copy(v) for k, v in run.replay.sample(run.config.train.sequences).items()}

        def work(run: Any = run, records: Any = records) -> None:
            for _ in range(updates):
                for _ in range(plays):
                    _play(run)
                run.learner.update(records)

        works[name] = work
    return works


WORKS = {"tiny": tiny, "1m": one_m}


def main(names: list[str]) -> int:
    """Measure the named works (all when none is named)."""
    for name in names or list(WORKS):
        found = alternated(WORKS[name](), ROUNDS, warmup=2, base="all")
        path = write(f"forms_{name}", found)
        for form, row in found.items():
            over = row.get("over_base", {"median": 1.0, "min": 1.0, "max": 1.0})
            print(f"{name:5} {form:24} {row['cpu_s']['median']:8.3f} s  {over['median']:6.3f}"
                  f"  ({over['min']:.3f} to {over['max']:.3f})", flush=True)  # fmt: skip
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
