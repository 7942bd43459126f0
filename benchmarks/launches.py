"""Operations that one update starts on a device, and where the host would wait for it: counted without one.

``python -m benchmarks.launches`` runs an update of each size on meta tensors, which have shapes and no values: whatever
would read a value of the device fails there, and a mode sees every operation. A fused norm counts as one operation
forward and two back, as a GPU has it; a ``foreach`` operation as one.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.record import write
from lore.config import load_config
from lore.gate.gate import Gate
from lore.training.agent import Agent
from lore.training.learner import Learner
from lore_datasets.environments import get_environment

__all__ = ["Launches", "count", "main", "make_learner", "records_for"]

META = torch.device("meta")
SKILLS = 6
_FREE = {"aten::empty", "aten::new_empty", "aten::empty_like", "aten::_unsafe_view", "aten::lift_fresh", "prim::device"}
_WAITS = {
    "aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal", "aten::nonzero",
    "aten::masked_select", "aten::_unique2", "aten::bincount",
}  # fmt: skip
"""Operations whose result, or the shape of it, the host reads from the device."""


class _Norm(torch.autograd.Function):
    """``rms_norm`` in as many operations as its fused kernels are."""

    @staticmethod
    def forward(context: Any, x: Tensor, scale: Tensor) -> Tensor:
        context.save_for_backward(scale)
        return x.mul(scale)

    @staticmethod
    def backward(context: Any, slope: Tensor) -> tuple[Tensor, Tensor]:
        (scale,) = context.saved_tensors
        return slope.neg(), scale.neg()


class _Made(TorchFunctionMode):
    """Sees tensors that are made on a device from numbers of the host, which no operation shows on meta tensors."""

    def __init__(self, seen: Launches) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) and out.device == self.seen.device
        data = args[1] if func is torch.Tensor.new_tensor else args[0] if args else None
        listed = func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[1], list | np.ndarray)
        if (made and not isinstance(data, Tensor)) or (listed and args[0].device == self.seen.device):
            self.seen.waits.append(f"{func.__name__} of numbers of the host")
        return out


class Launches(TorchDispatchMode):
    """Counts what is started on ``device`` while it is on.

    Attributes:
        started: operations by name; views and allocations are none.
        waits: what makes the host wait: values that are read, copies between host and device either way.
    """

    def __init__(self, device: torch.device = META) -> None:
        super().__init__()
        self.device = device
        self.started: Counter[str] = Counter()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split(".")[0]
        given = [x for x in tree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if name in _WAITS and any(x.device == self.device for x in given):
            self.waits.append(name)
        if name in ("aten::index", "aten::index_put_"):
            self.waits += [f"{name} by a mask" for x in given[1:] if x.dtype in (torch.bool, torch.uint8)]
        out = func(*args, **(kwargs or {}))
        made = [x for x in tree.tree_leaves(out) if isinstance(x, Tensor)]
        here = [x.device == self.device for x in (*given, *made)]
        arrays = [x for x in given if x.device != self.device and x.dim()]  # a number alone goes along with the call
        if any(here) and (arrays or (name == "aten::_to_copy" and not all(here)) or name == "aten::lift_fresh"):
            self.waits.append(f"{name} between host and device")
        if any(here) and not func.is_view and name not in _FREE:
            self.started[name] += 1
        return out

    @contextmanager
    def counting(self) -> Iterator[Launches]:
        """On, with fused norms; sees tensors that are made of numbers too."""
        before = torch.nn.functional.rms_norm
        torch.nn.functional.rms_norm = lambda x, _shape, scale, _eps: _Norm.apply(x, scale)
        try:
            with _Made(self), self:
                yield self
        finally:
            torch.nn.functional.rms_norm = before


def make_learner(paths: str = "none", device: torch.device = META, **settings: Any) -> Learner:
    """A learner on ``device``; ``paths``: none, B (kickstart), C, or BC (advised goals too)."""
    flags: dict[str, Any] = {"advice.dataset": "none", "options.enabled": "C" in paths, "options.max_options": 4}
    if "B" in paths:
        flags |= {"gate.enabled": True, "gate.kickstart": 0.3, "gate.cut_traces": True}
    if paths == "BC":
        flags["gate.goal_bonus"] = 0.1
    config = load_config(**flags, **settings)
    generator = torch.Generator().manual_seed(0)
    agent = Agent(config, get_environment(config.env.name), 0 if paths == "none" else SKILLS, generator).to(device)
    gate = Gate(config.gate) if config.gate.enabled else None
    return Learner(agent, config, None, device, gate=gate)


def records_for(learner: Learner) -> dict[str, np.ndarray]:
    """A batch of zeros with every field that the learner reads."""
    train, agent = learner.config.train, learner.agent
    size, lead = agent.world_model.size, (train.sequences, train.sequence_length + 1)
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "deter": ((size.deter,), np.float16), "stoch": ((size.stoch,), np.uint8), "action": ((), np.int64),
        "reward": ((), np.float32), "image": ((64, 64, 3), np.uint8), "state": ((104,), np.uint8),
        "proposals": ((SKILLS,), np.int8), "skill": ((), np.int16), "held": ((), np.int16), "ended": ((), np.int8),
        "advice": ((agent.num_actions + SKILLS,), np.float16), "confidence": ((), np.float32),
    }  # fmt: skip
    kinds = {name: shapes.get(name, ((), np.bool_)) for name in learner.reads}
    return {name: np.zeros((*lead, *shape), dtype) for name, (shape, dtype) in kinds.items()}


def count(paths: str = "none", **settings: Any) -> dict[str, Any]:
    """What one update starts, what the host hands over before it, and where it would wait in it."""
    learner = make_learner(paths, **settings)
    records = records_for(learner)
    with Launches().counting() as handed:
        inputs = learner.inputs(records)
    with Launches().counting() as step:
        learner.step(inputs)
    return {
        "started": handed.started.total() + step.started.total(), "handed_over": handed.waits, "waits": step.waits,
        "most": dict(step.started.most_common(12)),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["12m", "200m"], help="rows of the size table")
    args = parser.parse_args(argv)
    found = {f"{size} {paths}": count(paths, size=size) for size in args.sizes for paths in ("none", "BC")}
    for name, row in found.items():
        print(f"{name:10s}{row['started']:8,d} started, {len(row['waits'])} waits, {len(row['handed_over'])} upload")
    print(write("launches", {"rows": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
