"""One small store, made once and copied for each test that changes it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lore_datasets.environments import get_environment
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice, small_model, small_states


@pytest.fixture(scope="session")
def env():
    return get_environment("crafter")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def made(tmp_path_factory, env) -> Path:
    """A root with states v1, small v1 and v2 (advice) and small-model v1 (child of small v2); read only."""
    root = tmp_path_factory.mktemp("made")
    small_states(root, env, 48)
    small_advice(root, env, 48)
    parent = small_advice(root, env, 32, seed=1)
    small_model(root, env, parent)
    return root


@pytest.fixture
def root(made, tmp_path) -> Path:
    """A private copy of ``made``."""
    return Path(shutil.copytree(made, tmp_path / "datasets"))


@pytest.fixture
def store(root) -> Store:
    return Store(root, wait=5)
