"""A hand-made Crafter state, random ones, a scripted adviser, a scripted server on loopback."""

import json
from contextlib import ExitStack

import numpy as np
import pytest

from lore_datasets.environments import get_environment
from lore_datasets.language.geometry import StateView
from lore_datasets.store.store import Store
from lore_datasets.testing import random_states
from lore_datasets.types import SymbolicState
from pipeline.llm.base import Capabilities, Completing, Response
from tests.llm_server import KEY, ScriptedModel, running

ROWS = (
    "ggggTgggg",
    "gggTgggsg",
    "wwggggsss",
    "wwgtPcgss",
    "wwgggggls",
    "ggggzgggg",
    "gggggggg.",
)
KINDS = {"g": "grass", "T": "tree", "s": "stone", "w": "water", "t": "table", "P": "player", "c": "cow", "l": "lava",
         "z": "zombie", ".": "nothing"}  # fmt: skip


@pytest.fixture(scope="session")
def env():
    return get_environment("crafter")


@pytest.fixture(scope="session")
def make_state(env):
    """A state from rows of letters, with inventory, vitals and achievements by name."""
    vocab = env.vocab

    def make(rows=ROWS, facing="left", inventory=None, vitals=None, unlocked=(), daylight=200, sleeping=0):
        view = np.array([[vocab.target(KINDS[c]) for c in row] for row in rows], np.uint8)
        held = {**dict.fromkeys(vocab.items, 0), **(inventory or {})}
        signs = {**dict.fromkeys(vocab.vitals, 9), **(vitals or {})}
        names = [d[0] for d in vocab.directions]
        return SymbolicState(
            view=view,
            inventory=np.array([held[i] for i in vocab.items], np.uint8),
            vitals=np.array([signs[v] for v in vocab.vitals], np.uint8),
            facing=np.uint8(names.index(facing)),
            sleeping=np.uint8(sleeping),
            daylight=np.uint8(daylight),
            unlocked=np.array([a in unlocked for a in vocab.achievements], np.uint8),
        )

    return make


@pytest.fixture(scope="session")
def make_view(env, make_state):
    """A StateView of :func:`make_state`'s state."""
    return lambda *args, **kwargs: StateView(make_state(*args, **kwargs), env.vocab)


@pytest.fixture(scope="session")
def states(env):
    """64 random states."""
    return random_states(env, 64, np.random.default_rng(7))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


class Scripted(Completing):
    """An adviser whose answers are made by a function of the prompt; counts what it was asked."""

    def __init__(self, make, name="scripted", **capabilities):
        self.make, self.name, self.asked = make, name, []
        self.capabilities = Capabilities(**capabilities)

    def complete(self, prompts):
        self.asked += prompts
        made = [self.make(p) for p in prompts]
        return [a if isinstance(a, Response) else Response(a, model=self.name) for a in made]


def best_first(prompt):
    """The JSON of an adviser that takes options as they come."""
    if prompt.kind == "prior":
        return json.dumps({"ranked": list(prompt.options[:3]), "confidence": 0.7, "reason": "as listed"})
    if prompt.kind == "plan":
        return json.dumps({"plans": [{"steps": [{"do": prompt.options[0], "times": 2}], "score": 0.5}]})
    return json.dumps({"skills": []})


@pytest.fixture
def scripted():
    """Make a scripted adviser; without a function it takes options as they come."""
    return lambda make=best_first, **capabilities: Scripted(make, **capabilities)


@pytest.fixture
def serve(monkeypatch):
    """Start a server on loopback, ``serve(Handler, **attributes)``, with a canary for a key; it ends with the test."""
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ExitStack() as stack:
        yield lambda handler, **attributes: stack.enter_context(running(handler, **attributes))


@pytest.fixture
def server(serve):
    """A :class:`tests.llm_server.ScriptedModel` server."""
    return serve(ScriptedModel)
