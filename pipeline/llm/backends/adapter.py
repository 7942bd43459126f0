"""An adviser as users of the original LoRe write it: ``infer(obs_np, num_actions)`` gives logits over the actions.

A subclass of :class:`LLMAdapter` is a backend wherever one is named: ``--ask.backend module:Class``. Its answers become
rows that speak of primitive actions alone; goals stay unknown there, and no plans or skills are asked of it.
"""

from __future__ import annotations

import inspect
import math
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lore_datasets.environments import Environment
from lore_datasets.errors import ConfigError, NotFound, UsageError, shown
from lore_datasets.types import SymbolicState
from pipeline.llm.base import LLM, Capabilities, Completing, Prompt, Response, as_llm
from pipeline.questions.describe import describe

__all__ = ["AdapterBackend", "LLMAdapter", "load_adapter"]

_ANSWER = ("prior_logits", "confidence", "features")


class LLMAdapter:
    """Base class of a user's adviser; override :meth:`infer`.

    Attributes:
        environment: set before the first question.
        parameters: JSON-able dict of all that answers depend on besides the state; part of the journal's key, so
            that other values ask anew.
    """

    environment: Environment | None = None
    parameters: Mapping[str, Any] = {}

    def infer(self, obs_np: np.ndarray, num_actions: int) -> dict[str, Any]:
        """Advice on one state.

        ``obs_np``: uint8[S], the packed symbolic state. Returns ``prior_logits`` (num_actions finite numbers, higher
        is better), ``confidence`` (0..1, a number or a list of one) and, if it likes, ``features``, which no row keeps.
        """
        raise NotImplementedError

    def state(self, obs_np: np.ndarray) -> SymbolicState:
        """The fields of ``obs_np`` by name: view, inventory, vitals, facing, ..."""
        return SymbolicState.unpack(obs_np, self._known().layout)

    def describe(self, obs_np: np.ndarray) -> str:
        """``obs_np`` as the text that language models read."""
        return describe(self.state(obs_np), self._known())

    def _known(self) -> Environment:
        if self.environment is None:
            raise UsageError("the adapter has no environment yet", hint="set adapter.environment")
        return self.environment


class AdapterBackend(Completing):
    """An :class:`LLMAdapter` as an adviser of the offline phase: logits over all actions become option probabilities.

    Anything with ``infer`` will do. An answer outside the contract, or an exception, is a Response with ``error``.
    """

    def __init__(self, adapter: Any, environment: Environment, name: str = "") -> None:
        if not callable(getattr(adapter, "infer", None)):
            raise ConfigError(f"{type(adapter).__name__} has no infer method", hint="subclass LLMAdapter")
        adapter.environment = environment
        self.adapter, self.environment = adapter, environment
        self.name = f"adapter:{name or type(adapter).__name__}"
        self.capabilities = Capabilities(
            kinds=("prior",),
            parameters=dict(getattr(adapter, "parameters", {})),
            reads_state=True,
            answers_once=True,
            speaks_of="actions",
            seconds_per_question=0.1,
        )
        self._ids = {action: i for i, action in enumerate(environment.vocab.actions)}

    def complete(self, prompts: Sequence[Prompt]) -> list[Response]:
        """One Response per prompt, in order; each carries the probabilities of the prompt's options."""
        return [self._one(prompt) for prompt in prompts]

    def _one(self, prompt: Prompt) -> Response:
        started = time.monotonic()
        try:
            obs = np.frombuffer(prompt.state, np.uint8).copy()
            logits, confidence = _checked(self.adapter.infer(obs, len(self._ids)), len(self._ids))
            probabilities = _softmax(logits[[self._ids[option] for option in prompt.options]])
        except _OutsideContract as error:
            return self._failed(str(error), started)
        except Exception as error:  # a user's code: whatever it raises is a failed question, not the end of the run
            return self._failed(f"infer raised {type(error).__name__}", started)
        seconds = time.monotonic() - started
        return Response("", self.name, latency_s=seconds, probabilities=probabilities, confidence=confidence)

    def _failed(self, error: str, started: float) -> Response:
        return Response("", self.name, latency_s=time.monotonic() - started, finish="error", error=error)


class _OutsideContract(Exception):
    pass


def _checked(answer: Any, actions: int) -> tuple[np.ndarray, float]:
    """(float64[actions] finite logits, confidence in 0..1) of an answer; _OutsideContract says what is wrong."""
    if not isinstance(answer, Mapping) or not {"prior_logits", "confidence"} <= set(answer):
        raise _OutsideContract("the answer is no dict with prior_logits and confidence")
    unknown = sorted(shown(key, 20) for key in answer if key not in _ANSWER)
    if unknown:
        raise _OutsideContract(f"unknown entries {', '.join(unknown[:4])}; known are {', '.join(_ANSWER)}")
    try:
        logits = np.asarray(answer["prior_logits"], np.float64)
        sure = np.asarray(answer["confidence"], np.float64)
    except (TypeError, ValueError):
        raise _OutsideContract("prior_logits or confidence are not numbers") from None
    if logits.size != actions or logits.ndim > 2:
        raise _OutsideContract(f"prior_logits of shape {list(logits.shape)}, expected [{actions}]")
    if not np.isfinite(logits).all():
        raise _OutsideContract("prior_logits are not finite")
    if sure.size != 1 or not 0 <= float(sure.reshape(-1)[0]) <= 1:
        raise _OutsideContract("confidence is not one number in 0..1")
    return logits.reshape(-1), float(sure.reshape(-1)[0])


def _softmax(logits: np.ndarray) -> tuple[float, ...]:
    p = np.exp(logits - logits.max())
    return tuple(float(x) for x in p / math.fsum(p))


def load_adapter(where: str, environment: Environment | None, **options: Any) -> LLM:
    """The adviser ``module:Class`` (the working folder is searched too): an LLMAdapter, or a whole backend.

    ``options`` that its constructor has are handed on. ConfigError or NotFound say what is wrong with ``where``.
    """
    module, _, attribute = where.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise NotFound(f"no module {shown(module)}", hint="run from its folder, or put it on PYTHONPATH") from None
    except AttributeError:
        raise NotFound(f"module {shown(module)} has no {shown(attribute)}", hint="write module:Class") from None
    if isinstance(found, type):
        if not any(callable(getattr(found, name, None)) for name in ("infer", "complete", "answer")):
            raise ConfigError(f"{found.__name__} has no infer method", hint="subclass LLMAdapter")  # and is not made
        known = inspect.signature(found)
        options = {key: value for key, value in options.items() if key in known.parameters}
        try:
            known.bind(**options)
        except TypeError as error:
            raise ConfigError(f"{shown(where)} cannot be made: {shown(error)}", hint="give it defaults") from None
        found = found(**options)
    if isinstance(found, LLM) or callable(getattr(found, "complete", None)):
        return as_llm(found)
    if environment is None:
        raise UsageError(f"{shown(where)} needs the environment that it advises", hint="pass environment=")
    return AdapterBackend(found, environment, where)
