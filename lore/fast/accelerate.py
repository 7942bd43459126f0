"""The one entry to everything compiled: modules of an agent get the class whose methods are compiled loops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from lore.dreamer import nets
from lore.dreamer.rssm import RSSM
from lore.dreamer.symbols import OneHotLinear
from lore.fast import parallel
from lore.fast.imagination import SharedImagination
from lore.fast.packing import CACHED
from lore_datasets.cores import available_cores

if TYPE_CHECKING:
    from lore.sizes import Size
    from lore.training.agent import Agent

__all__ = ["accelerate", "compile_modules", "divide_threads"]


def accelerate(agent: Agent, device: torch.device, threads: int, *, tf32: bool = False) -> None:
    """Give ``agent`` on ``device`` its fastest form on ``threads`` threads (0 = as many as torch uses).

    On a CPU with numba, heads, recurrent core and image stages get a subclass with the same parameters, so that
    checkpoints fit either form; imagination is shared between threads. Elsewhere the agent stays as it is, and ``tf32``
    says how a CUDA device multiplies float32 matrices.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    compiled = device.type == "cpu" and compile_modules(agent)
    divide_threads(threads, agent.world_model.size if compiled else None)
    if compiled:  # image networks share each of their stages between all threads: nothing runs beside them
        agent.imagination = SharedImagination(beside_model=agent.observation == "symbolic")


def divide_threads(count: int, size: Size | None) -> None:
    """Give ``count`` threads (0 = as many as there were) to compiled loops where they do nearly all the work of a
    learner of this size (None = it has none), and one to torch; else to torch, whose number loops follow."""
    count = count or min(parallel.threads(), available_cores())
    loops_lead = size is not None and (size.deter + size.stoch * size.classes) * size.units <= CACHED
    # torch's own threads wait for work at full speed, on the cores that the loops need.
    parallel.use(count if loops_lead else 0)
    torch.set_num_threads(1 if loops_lead else count)


def compile_modules(network: nn.Module) -> bool:
    """Give every module of ``network`` that has a compiled form the class of that form; False where numba is
    missing."""
    forms = _compiled_forms()
    for module in network.modules():
        module.__class__ = forms.get(type(module), type(module))
    return bool(forms)


def _compiled_forms() -> dict[type[nn.Module], type[nn.Module]]:
    """Plain class -> its compiled subclass; empty where numba is missing."""
    try:
        from lore.fast import heads, images, layers, rssm
    except ModuleNotFoundError as error:
        if error.name not in ("numba", "llvmlite"):
            raise
        return {}
    return {
        nets.Head: heads.CompiledHead,
        nets.TwoHotHead: heads.CompiledTwoHotHead,
        nets.ImageEncoder: images.CompiledImageEncoder,
        nets.ImageDecoder: images.CompiledImageDecoder,
        nets.Linear: layers.CompiledLinear,
        nets.NormAct: layers.CompiledNormAct,
        OneHotLinear: layers.CompiledOneHotLinear,
        RSSM: rssm.CompiledRSSM,
    }
