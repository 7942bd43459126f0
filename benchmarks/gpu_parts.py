"""What the GPU rows are made of: learners and replay without a game, an update compiled and as one CUDA graph."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as tree

__all__ = [
    "PRECISIONS",
    "CompiledUpdate",
    "GraphedUpdate",
    "Setting",
    "make_learner",
    "make_replay",
    "random_batch",
    "timed_updates",
]

SKILLS, PLANS = 24, 512


@dataclasses.dataclass(frozen=True)
class Setting:
    """Where and how large."""

    device: str
    tiny: bool

    @staticmethod
    def parse(arguments: list[str]) -> Setting:
        """Inverse of :meth:`arguments`."""
        return Setting(arguments[1], "--tiny" in arguments)

    def arguments(self) -> list[str]:
        """Command-line form."""
        return ["--device", self.device, *(["--tiny"] if self.tiny else [])]

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a CUDA device."""
        return self.device.startswith("cuda")

    @property
    def sequences(self) -> int:
        """Sequences per update."""
        return 2 if self.tiny else 16

    @property
    def length(self) -> int:
        """Trained steps per sequence."""
        return 4 if self.tiny else 64

    def size(self, name: str) -> str:
        """The row of the size table that stands for ``name``."""
        return "tiny" if self.tiny else name

    @staticmethod
    def sizes() -> dict[str, Any]:
        """The size table."""
        from lore.sizes import SIZES

        return SIZES

    def wait(self) -> None:
        """Until the device has done everything asked for."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def describe(self) -> str:
        """Device and versions in one line."""
        name = torch.cuda.get_device_name() if self.on_gpu else "CPU"
        return f"{name}, torch {torch.__version__}, cuda {torch.version.cuda}"


def timed_updates(setting: Setting, once: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """Milliseconds per call after three calls of warm-up: median over blocks of ten, each ended by a wait.

    At toy sizes one call of warm-up and one block of two.
    """
    for _ in range(1 if setting.tiny else 3):
        once()
    setting.wait()
    blocks, count, began = [], 2 if setting.tiny else 10, time.perf_counter()
    while not blocks or (time.perf_counter() - began < seconds and not setting.tiny):
        start = time.perf_counter()
        for _ in range(count):
            once()
        setting.wait()
        blocks.append(1e3 * (time.perf_counter() - start) / count)
    ms = statistics.median(blocks)
    return {"ms": ms, "min_ms": min(blocks), "max_ms": max(blocks), "blocks": len(blocks), "updates_per_s": 1e3 / ms}


PRECISIONS = {"f32": (False, False), "tf32": (True, False), "bf16": (True, True)}
"""Name -> ``model.tf32`` and ``model.bf16``."""


def _config(setting: Setting, size: str, precision: str, paths: str) -> Any:
    from lore.config import load_config

    flags: dict[str, Any] = {}
    if paths != "plain":
        flags = {"gate.enabled": True, "advice.dataset": "none"}
        flags["gate.kickstart"] = 0.0  # the made-up batches hold no advice
    if paths == "ABC":
        flags |= {"options.enabled": True, "synthetic.enabled": True}
    return load_config(
        size=size, observation="pixels", batch_size=setting.sequences * setting.length,
        sequence_length=setting.length, horizon=2 if setting.tiny else 15,
        **dict(zip(("tf32", "bf16"), PRECISIONS[precision], strict=True)), **flags,
    )  # fmt: skip


def make_learner(setting: Setting, size: str, precision: str = "bf16", paths: str = "plain") -> Any:
    """A learner on noise as training makes it, in plain torch; ``paths`` is plain, B or ABC."""
    from lore.advice.plans import Plans
    from lore.fast.accelerate import accelerate
    from lore.gate.gate import Gate
    from lore.training.agent import Agent
    from lore.training.learner import Learner
    from lore_datasets.environments import get_environment

    config, device = _config(setting, size, precision, paths), torch.device(setting.device)
    environment = get_environment("crafter")
    skills = 0 if paths == "plain" else SKILLS
    agent = Agent(config, environment, skills, torch.Generator().manual_seed(0)).to(device)
    if setting.on_gpu:  # on a CPU, at toy sizes, the plain form stands for a GPU's
        accelerate(agent, device, config.train.threads, tf32=config.model.tf32)
    rng, plans = np.random.default_rng(0), None
    if paths == "ABC":
        plans = Plans(rng.integers(0, 17, (PLANS, 8)), np.full(PLANS, 8))
    learner = Learner(agent, config, torch.Generator(device).manual_seed(0), device, plans,
        Gate(config.gate) if config.gate.enabled else None)  # fmt: skip
    if paths == "ABC":
        learner.set_slots(np.arange(config.options.max_options))
        learner.updates = config.synthetic.warmup_updates + 1
    return learner


def _fields(size: str) -> dict[str, tuple[tuple[int, ...], Any]]:
    from lore.replay.ring import latent_fields
    from lore.sizes import SIZES

    return {
        "image": ((64, 64, 3), np.uint8), "action": ((), np.int64), "reward": ((), np.float32),
        "is_first": ((), np.bool_), "is_last": ((), np.bool_), "is_terminal": ((), np.bool_),
        **latent_fields(SIZES[size].deter, SIZES[size].stoch),
    }  # fmt: skip


def _noise(fields: Mapping[str, tuple[tuple[int, ...], Any]], lead: tuple[int, ...], classes: int) -> dict[str, Any]:
    rng, out = np.random.default_rng(0), {}
    for name, (shape, dtype) in fields.items():
        high = {"image": 256, "action": 17, "stoch": classes}.get(name)
        shape = (*lead, *shape)
        if high is not None:
            out[name] = rng.integers(0, high, shape).astype(dtype)
        elif name.startswith("is_"):
            out[name] = rng.random(shape) < (0.005 if name == "is_first" else 0.0)
        else:
            out[name] = rng.normal(0.0, 0.3, shape).astype(dtype)
    return out


def make_replay(setting: Setting, size: str, records: int = 16_384) -> Any:
    """Replay on the device, full of noise."""
    from lore.replay.backends import DeviceReplay

    size = setting.size(size)
    records, fields = 64 if setting.tiny else records, _fields(size)
    device = torch.device(setting.device)
    replay = DeviceReplay(fields, records, 1, 0, length=setting.length + 1, device=device)
    for name, value in _noise(fields, (1, records), setting.sizes()[size].classes).items():
        replay.arrays[name].copy_(torch.from_numpy(value))
    replay.written[:] = records
    return replay


def random_batch(setting: Setting, size: str) -> dict[str, Any]:
    """A batch with the fields of all advice paths, on the device."""
    lead, rng = (setting.sequences, setting.length + 1), np.random.default_rng(1)
    batch = _noise(_fields(size), lead, setting.sizes()[size].classes)
    batch |= {
        "proposals": rng.integers(-1, 17, (*lead, SKILLS)).astype(np.int8),
        "skill": np.full(lead, -1, np.int16), "held": np.zeros(lead, np.int16), "ended": np.zeros(lead, np.int8),
        "plan": rng.integers(-1, PLANS, lead).astype(np.int32), "advised": np.zeros(lead, np.bool_),
    }  # fmt: skip
    return {name: torch.from_numpy(value).to(setting.device) for name, value in batch.items()}


class CompiledUpdate:
    """A learner's plain update with both halves compiled by torch, each as one graph."""

    def __init__(self, learner: Any, backend: str = "inductor") -> None:
        self.learner = learner
        learner.losses = torch.compile(learner.losses, fullgraph=True, dynamic=False, backend=backend)
        learner.move = torch.compile(learner.move, fullgraph=True, dynamic=False, backend=backend)

    def __call__(self, records: Mapping[str, Any]) -> Any:
        """As :meth:`lore.training.learner.Learner.update`."""
        return self.learner.update(records)


class GraphedUpdate:
    """A learner's whole plain update captured once as a CUDA graph; a call copies its inputs in and replays it.

    It stays here until it has run on a GPU.

    Args:
        learner: on a CUDA device, advice paths off. records: a batch of the shapes of all later ones.
    """

    def __init__(self, learner: Any, records: Mapping[str, Any]) -> None:
        self.learner = learner
        self.inputs = tree.tree_map(torch.clone, learner.inputs(records))
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # lazily made handles and workspaces must exist before the capture
            for _ in range(3):
                learner.optimiser.zero_grad()
                learner.step(self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        learner.optimiser.zero_grad()
        with torch.cuda.graph(self.graph):
            self.result = learner.step(self.inputs)

    def __call__(self, records: Mapping[str, Any]) -> Any:
        """(posterior, metrics) as :meth:`lore.training.learner.Learner.update`, in memory that the next call
        overwrites."""
        fresh = self.learner.inputs(records)
        for kept, value in zip(tree.tree_leaves(self.inputs), tree.tree_leaves(fresh), strict=True):
            kept.copy_(value)
        self.graph.replay()
        self.learner.updates += 1
        return self.result
