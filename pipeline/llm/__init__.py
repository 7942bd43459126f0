"""Advisers behind one Protocol: rule book, services, local models, controls. Nothing touches a network at import."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lore_datasets.errors import ConfigError, UsageError, shown

if TYPE_CHECKING:
    from lore_datasets.environments import Environment
    from pipeline.config import AskConfig
    from pipeline.llm.base import LLM
    from pipeline.llm.journal.journal import Journal

__all__ = ["BACKENDS", "backend_from", "get_backend"]

BACKENDS = {
    "rules": "a deterministic rule book; not a language model",
    "gemini": "Google Gemini through google-genai; key in GEMINI_API_KEY or GOOGLE_API_KEY",
    "openai": "any OpenAI-compatible server; key, where it needs one, in OPENAI_API_KEY",
    "local": "a GGUF model in this process through xllamacpp",
    "file": "questions as batch files and Markdown packs, answers read back from files",
    "replay": "answers of a stored journal",
    "blind": "control: a fixed order that never looks at the state",
    "random": "control: uniformly random feasible choices",
    "degraded": "control: the rule book with a share of answers dropped or wrong",
}
"""Backend name -> what it is."""

_EXTRAS = {"gemini": "google-genai", "openai": "aiohttp", "local": "xllamacpp"}


def get_backend(name: str, **options: Any) -> LLM:
    """The adviser of that name; ``options`` are its constructor's.

    ConfigError lists the known names, UsageError names the package that a backend lacks or an option it does not have.
    ``degraded`` takes ``inner`` (default: the rule book), ``replay`` takes ``journal``; ``gemini``, ``openai`` and
    ``local`` take ``model``. ``module:Class`` is a user's own (:mod:`pipeline.llm.backends.adapter`); it takes
    ``environment``.
    """
    if ":" in name:
        from pipeline.llm.backends.adapter import load_adapter

        return load_adapter(name, options.pop("environment", None), **options)
    if name not in BACKENDS:
        raise ConfigError(f"unknown backend {shown(name)!r}", hint=f"one of: {', '.join(BACKENDS)}")
    try:
        return _make(name, options)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("pipeline", "lore_datasets"):
            raise
        package = _EXTRAS.get(name, missing)
        raise UsageError(f"backend {name} needs the package {package}", hint=f"pip install {package}") from None


def backend_from(
    ask: AskConfig, environment: Environment | None = None, seed: int = 0, journal: Journal | None = None
) -> LLM:
    """The adviser that an :class:`pipeline.config.AskConfig` names.

    ``environment``: that of a rule book or a user's adapter. ``seed``: of the controls. ``journal``: what ``replay``
    answers from, and what keeps the names of batch jobs.
    """
    options: dict[str, Any] = {}
    if ask.backend in ("gemini", "openai", "local"):
        options = {"timeout_s": ask.timeout_s}
        options |= {"model": ask.model} if ask.model else {}
    if ask.backend in ("gemini", "openai"):
        options |= {"concurrency": ask.concurrency} | ({"base_url": ask.base_url} if ask.base_url else {})
        options |= {"thinking": ask.thinking_tokens}
        options |= {"requests_per_minute": ask.requests_per_minute, "tokens_per_minute": ask.tokens_per_minute}
    if (ask.backend == "rules" or ":" in ask.backend) and environment is not None:
        options = {"environment": environment}
    if ":" in ask.backend and ask.model:
        options |= {"model": ask.model}
    if ask.backend in ("random", "blind", "degraded"):
        options = {"seed": seed}
    if ask.backend == "degraded":
        options |= {"dropped": ask.dropped, "wrong": ask.wrong}
        options |= {} if environment is None else {"inner": get_backend("rules", environment=environment)}
    if ask.backend == "file":
        options = {"folder": ask.folder, "model": ask.model}
    if ask.backend == "replay":
        options = {"adviser": ask.model} | ({} if journal is None else {"journal": journal})
    llm = get_backend(ask.backend, **options)
    if ask.batch == "off":
        return llm
    from pipeline.llm.backends.gemini import Gemini
    from pipeline.llm.backends.openai import OpenAI
    from pipeline.llm.journal.journal import Journal

    journal = Journal() if journal is None else journal
    if isinstance(llm, OpenAI):
        from pipeline.llm.backends.openai_batch import OpenAIBatch

        return OpenAIBatch(llm, journal)
    from pipeline.llm.backends.gemini_batch import GeminiBatch

    assert isinstance(llm, Gemini)
    return GeminiBatch(llm, journal, ask.batch)


def _make(name: str, options: dict[str, Any]) -> LLM:
    homes = {
        "rules": ("pipeline.llm.backends.rules", "RulesAdviser"),
        "gemini": ("pipeline.llm.backends.gemini", "Gemini"),
        "openai": ("pipeline.llm.backends.openai", "OpenAI"),
        "local": ("pipeline.llm.backends.local", "Local"),
        "file": ("pipeline.llm.backends.file", "FileAdviser"),
        "replay": ("pipeline.llm.backends.controls", "Replay"),
        "blind": ("pipeline.llm.backends.controls", "Blind"),
        "random": ("pipeline.llm.backends.controls", "RandomAdviser"),
        "degraded": ("pipeline.llm.backends.controls", "Degraded"),
    }
    if name == "degraded" and "inner" not in options:
        options = {"inner": get_backend("rules"), **options}
    module, attribute = homes[name]
    make = getattr(import_module(module), attribute)
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        raise UsageError(f"backend {name}: {shown(error, 160)}", hint="see its class for the options it has") from None
    return make(**options)
