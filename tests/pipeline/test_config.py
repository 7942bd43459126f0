"""The offline phase's configuration refuses what it could not run, by field and range."""

import dataclasses
import itertools

import pytest

from lore_datasets.errors import ConfigError
from pipeline.config import AdviseConfig, AskConfig, CollectConfig, PipelineConfig, SelectConfig, to_dict


@pytest.mark.parametrize(
    ("section", "values", "field"),
    [
        (CollectConfig, {"budget": 0}, "collect.budget"),
        (CollectConfig, {"stride": 1.5}, "collect.stride"),
        (SelectConfig, {"novelty": 1.01}, "select.novelty"),
        (SelectConfig, {"competent_weight": float("nan")}, "select.competent_weight"),
        (AskConfig, {"max_cost": -1.0}, "ask.max_cost"),
        (AskConfig, {"backend": "../rules"}, "ask.backend"),
        (AskConfig, {"timeout_s": float("inf")}, "ask.timeout_s"),
        (AdviseConfig, {"plans": True}, "advise.plans"),
        (AdviseConfig, {"plan_share": "all"}, "advise.plan_share"),
        (AdviseConfig, {"clip": 6.0}, "advise.clip"),
        (AdviseConfig, {"clip": 2.0, "gap": 3.0}, "advise.gap"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_field_and_the_range(section, values, field):
    with pytest.raises(ConfigError, match=field) as error:
        section(**values)
    assert ".." in error.value.hint or "name" in error.value.hint


def test_the_whole_configuration_becomes_plain_json_values():
    plain = to_dict(PipelineConfig(ask=AskConfig(backend="random")))
    assert plain["ask"]["backend"] == "random"
    assert plain["advise"]["plans"] == 3 and plain["advise"]["plan_length"] == 12


def test_every_setting_is_documented_in_the_source():
    import ast
    import inspect

    import pipeline.config as module

    tree = ast.parse(inspect.getsource(module))
    for section in (CollectConfig, SelectConfig, AskConfig, AdviseConfig):
        body = next(n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == section.__name__)
        documented = {
            a.target.id
            for a, b in itertools.pairwise(body)
            if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr) and isinstance(b.value, ast.Constant)
        }
        assert documented == {f.name for f in dataclasses.fields(section)}
