"""Configuration: the original's names, ranges, overrides, round trip."""

import pytest

from lore.config import SIZES, Config, from_dict, load_config, replace, to_dict
from lore_datasets.errors import ConfigError


def test_the_originals_names_are_all_there_with_their_defaults():
    config = load_config()
    train = {"total_frames": 1_000_000, "use_llm": False, "llm_model": "gemini-2.5-flash-lite",
             "synthetic_ratio_max": 0.25,
             "synthetic_execution_prob": 0.2, "option_generation_interval": 500, "max_options": 8}  # fmt: skip
    for name, value in train.items():
        assert getattr(config.train, name) == value, name
    for name in ("llm_timeout_s", "llm_cache_size", "synthetic_weight_decay", "skill_confidence_threshold",
                 "log_interval", "replay_capacity", "batch_size", "learning_rate"):  # fmt: skip
        assert hasattr(config.train, name), name
    model = {"beta_max": 0.3, "delta_target": 0.1, "enable_hierarchical_options": False, "max_options": 8}
    for name, value in model.items():
        assert getattr(config.model, name) == value, name
    assert hasattr(config.model, "uncertainty_threshold")


@pytest.mark.parametrize(
    ("name", "value"),
    [("beta_max", 0.5), ("delta_target", 0.05), ("uncertainty_threshold", 0.3), ("synthetic_ratio_max", 0.15),
     ("synthetic_weight_decay", 0.95), ("option_generation_interval", 200), ("llm_timeout_s", 1.5), ("llm_cache_size",
     2000),
     ("skill_confidence_threshold", 0.6)],
)  # fmt: skip
def test_every_value_of_the_originals_tuning_section_is_reachable_by_its_bare_name(name, value):
    config = load_config(**{name: value})
    found = [getattr(s, name) for s in (config.train, config.model) if hasattr(s, name)]
    assert found == [value]


def test_a_name_in_two_sections_must_say_which():
    with pytest.raises(ConfigError, match="several sections"):
        load_config(max_options=12)
    assert load_config(**{"model.max_options": 12}).model.max_options == 12


@pytest.mark.parametrize(
    "override",
    [{"synthetic_ratio_max": 1.5}, {"beta_max": -0.1}, {"train.batch_size": 100}, {"model.size": "huge"},
     {"env.observation": "smell"}, {"gate.hold": 0}, {"learning_rate": float("nan")}, {"gate.weights": (0.0, 0.0, 0.0)},
     {"env.area": (1, 2)}, {"total_frames": True}],
)  # fmt: skip
def test_out_of_range_values_are_refused_with_field_value_and_range(override):
    with pytest.raises(ConfigError) as caught:
        load_config(**override)
    leaf = next(iter(override)).rpartition(".")[2]
    assert leaf in caught.value.message
    assert caught.value.hint


def test_unknown_names_are_refused_with_near_ones():
    with pytest.raises(ConfigError, match="unknown setting") as caught:
        load_config(beta=1)
    assert "beta_max" in caught.value.hint


def test_paths_without_a_dataset_are_refused():
    with pytest.raises(ConfigError, match=r"advice\.dataset"):
        load_config(use_llm=True)
    assert load_config(use_llm=True, dataset="a@v1").needs_advice


def test_dict_round_trip_is_equal_and_refuses_strangers():
    config = load_config(size="tiny", hold=3, **{"train.seed": 7})
    assert from_dict(to_dict(config)) == config
    with pytest.raises(ConfigError):
        from_dict({"train": {"sedd": 1}})
    with pytest.raises(ConfigError):
        from_dict({"train": 3})


def test_configs_are_frozen_and_replace_leaves_the_original_alone():
    config = Config()
    changed = replace(config, **{"train.seed": 5})
    assert (config.train.seed, changed.train.seed) == (0, 5)
    with pytest.raises(AttributeError):
        config.train.seed = 1  # type: ignore[misc]


def test_size_table_keeps_deter_at_eight_times_hidden():
    assert list(SIZES) == ["tiny", "1m", "12m", "25m", "50m", "100m", "200m", "400m"]
    assert all(s.deter == 8 * s.hidden for s in SIZES.values())
