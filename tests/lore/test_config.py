"""Configuration: ranges, overrides, round trip."""

import pytest

from lore.config import Config, from_dict, load_config, replace, to_dict
from lore.sizes import SIZES
from lore_datasets.errors import ConfigError


def test_a_name_in_two_sections_must_say_which():
    with pytest.raises(ConfigError, match="several sections"):
        load_config(enabled=False)
    assert load_config(**{"gate.enabled": False}) == Config()


@pytest.mark.parametrize(
    "override",
    [{"ratio_max": 1.5}, {"beta_max": -0.1}, {"train.batch_size": 100}, {"model.size": "huge"},
     {"env.observation": "smell"}, {"gate.hold": 0}, {"learning_rate": float("nan")}, {"gate.weights": (0.0, 0.0, 0.0)},
     {"env.area": (1, 2)}, {"steps": True}, {"train.seed": 2.5}],
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
        load_config(**{"gate.enabled": True})
    assert load_config(**{"gate.enabled": True}, dataset="a@v1").needs_advice


def test_numbers_of_frames_and_skills_without_options_are_refused():
    with pytest.raises(ConfigError, match="frames hold no numbers"):
        load_config(numbers_as_classes=1.0, observation="pixels")
    with pytest.raises(ConfigError, match="path C is off"):
        load_config(imagine_only_skills=True)
    assert load_config(numbers_as_classes=1.0, observation="symbolic").model.numbers_as_classes == 1.0


def test_dict_round_trip_is_equal_and_refuses_strangers():
    config = load_config(size="tiny", hold=3, **{"train.seed": 7})
    assert from_dict(to_dict(config)) == config
    with pytest.raises(ConfigError):
        from_dict({"train": {"sedd": 1}})
    with pytest.raises(ConfigError):
        from_dict({"train": 3})
    with pytest.raises(ConfigError, match="is not an object"):
        from_dict({"model": 3, "train": {"max_options": 3}})


def test_configs_are_frozen_and_replace_leaves_the_original_alone():
    config = Config()
    changed = replace(config, **{"train.seed": 5})
    assert (config.train.seed, changed.train.seed) == (0, 5)
    with pytest.raises(AttributeError):
        config.train.seed = 1  # type: ignore[misc]


def test_size_table_keeps_deter_at_eight_times_hidden():
    assert list(SIZES) == ["tiny", "1m", "12m", "25m", "50m", "100m", "200m", "400m"]
    assert all(s.deter == 8 * s.hidden for s in SIZES.values())
