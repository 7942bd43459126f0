"""Every module says what is public; the names that users of the original expect are there."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import pytest

from flows.prefect_flows.runtime import prepare
from lore.config import from_dict, load_config, replace, to_dict
from lore_datasets.errors import ConfigError

PACKAGES = ("lore_datasets", "pipeline", "lore", "flows")


def modules():
    for package in PACKAGES:
        root = importlib.import_module(package)
        yield package
        yield from (m.name for m in pkgutil.walk_packages(root.__path__, f"{package}.") if "__main__" not in m.name)


@pytest.fixture(scope="module", autouse=True)
def prefect_home(tmp_path_factory):
    """Importing the flows imports Prefect, which must not touch the home folder."""
    if "prefect" not in sys.modules:
        prepare(tmp_path_factory.mktemp("prefect"))


def order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each in alphabetical order."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("name", list(modules()))
def test_a_module_lists_its_public_names_in_order_and_has_them(name):
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), f"{name} does not say what it is"
    listed = getattr(module, "__all__", None)
    if listed is None:
        assert hasattr(module, "__path__"), f"{name} has no __all__"
        return
    assert list(listed) in (sorted(listed, key=order), sorted(listed)), f"{name}.__all__ is not in order"
    assert len(set(listed)) == len(listed)
    for each in listed:
        assert hasattr(module, each), f"{name} has no {each}"


ORIGINAL = {
    "train": {
        "total_frames": 1_000_000, "use_llm": False, "llm_model": "gemini-2.5-flash-lite",
        "synthetic_ratio_max": 0.25, "synthetic_execution_prob": 0.2, "option_generation_interval": 500,
        "max_options": 8,
    },
    "model": {"beta_max": 0.3, "delta_target": 0.1, "enable_hierarchical_options": False, "max_options": 8},
}  # fmt: skip
NAMED = {
    "train": ("batch_size", "learning_rate", "llm_timeout_s", "llm_cache_size", "synthetic_weight_decay",
              "skill_confidence_threshold", "log_interval", "replay_capacity"),
    "model": ("uncertainty_threshold", "enable_synthetic_replay"),
}  # fmt: skip
TUNING = {
    "model.beta_max": 0.5, "model.delta_target": 0.05, "model.uncertainty_threshold": 0.3,
    "train.synthetic_ratio_max": 0.15, "train.synthetic_weight_decay": 0.95, "train.max_options": 12,
    "train.option_generation_interval": 200, "train.llm_timeout_s": 1.5, "train.llm_cache_size": 2000,
    "train.skill_confidence_threshold": 0.6,
}  # fmt: skip


def test_load_config_has_the_original_s_names_and_defaults():
    config = load_config()
    for section, values in ORIGINAL.items():
        for name, value in values.items():
            assert getattr(getattr(config, section), name) == value, f"{section}.{name}"
    for section, names in NAMED.items():
        assert all(hasattr(getattr(config, section), name) for name in names)


@pytest.mark.parametrize(("name", "value"), TUNING.items())
def test_every_value_of_the_original_s_tuning_guide_is_reachable(name, value):
    config = load_config(**{name: value})
    section, leaf = name.split(".")
    assert getattr(getattr(config, section), leaf) == value
    assert from_dict(to_dict(config)) == config


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("train.total_frames", 0, "train.total_frames = 0 is out of range"),
        ("train.synthetic_ratio_max", 1.5, "train.synthetic_ratio_max = 1.5 is out of range"),
        ("model.beta_max", float("nan"), "model.beta_max = nan is out of range"),
        ("model.size", "huge", "model.size = huge is out of range"),
        ("train.totl_frames", 5, "unknown setting 'train.totl_frames'"),
        ("max_options", 5, "stands in several sections"),
    ],
)
def test_a_bad_setting_is_named_with_its_value_and_range(name, value, said):
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        replace(None, **{name: value})
