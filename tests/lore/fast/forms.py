"""Plain and compiled copies of one network, and their outputs and gradients side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from lore.fast.accelerate import compile_modules

M = TypeVar("M", bound=nn.Module)

__all__ = ["assert_same", "both", "seeded", "shaken"]


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def shaken(module: M) -> M:
    """The module with no bias zero and no scale one."""
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=seeded(i))
    return module


def both(module: M) -> tuple[M, M]:
    """The plain module and a compiled copy of it."""
    other = copy.deepcopy(module)
    assert compile_modules(other) and list(other.state_dict()) == list(module.state_dict())
    return module, other


def assert_same(
    plain: nn.Module, compiled: nn.Module, run: Callable[[nn.Module, Sequence[Tensor]], Tensor],
    *inputs: Tensor, tolerance: float = 1e-4,
) -> None:  # fmt: skip
    """``run(module, inputs)``, its gradients by parameters and by the inputs that want one, agree."""
    found: list[dict[str, Tensor]] = []
    for module in (plain, compiled):
        given = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
        out = run(module, given)
        out.backward(torch.randn(out.shape, generator=seeded(99)))
        found.append({"output": out} | {f"input {i}": x.grad for i, x in enumerate(given) if x.requires_grad})
        found[-1] |= {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        module.zero_grad()
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(
            found[1][name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
