"""The sentences of a report say what the numbers and their intervals allow, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows.report.read import RunData, Subject
from flows.report.verdict import banners, explanations, verdict
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.testing import small_advice


def run(
    name, *, advice="", on=(), modes=None, series=None, steps=5000, total=5000, env=("crafter", "symbolic"), **more
):
    """A run as its folder would say it; ``modes``: mode -> (mean, low, high)."""
    config = {"env": {"name": env[0], "observation": env[1]}, "train": {"steps": total, "seed": 0}}
    config |= {"advice": {"dataset": advice}} | {section: {"enabled": True} for section in on}
    bodies = {m: {"episodes": 20, "return_mean": v[0], "return_interval": v[1:]} for m, v in (modes or {}).items()}
    return RunData(
        name, Path(name), config, advice, evaluation={"final_policy": bodies} if bodies else None,
        series=series or {}, progress={"step": steps, "total": total}, **more,
    )  # fmt: skip


def guided(trained=(12.9, 11.5, 14.0), alone=(8.7, 7.5, 9.8), **more):
    modes = {"as_trained": trained, "agent_alone": alone}
    return run("with", advice="claude@v2#12ab", on=("gate",), modes=modes, **more)


PLAIN = run("without", modes={"as_trained": (1.4, 1.1, 1.7), "agent_alone": (1.4, 1.1, 1.7)})


def test_a_version_whose_name_begins_alike_is_not_the_one_that_the_run_followed(tmp_path):
    ref = small_advice(tmp_path, get_environment("crafter"), n=20, name="claude")
    shown = replace(load_advice(str(ref), tmp_path), ref=replace(ref, version=20))
    text = " ".join(verdict(Subject((guided(),), shown)))
    assert text.startswith("With the advice of claude@v2#12ab the agent")


def said(*runs):
    return " ".join(verdict(Subject(runs)))


def test_the_first_sentence_holds_the_three_figures_with_their_intervals():
    text = said(PLAIN, guided())
    assert text.startswith(
        "With the advice of claude@v2#12ab the agent makes a return of 12.9 (11.5 to 14.0) after 5,000 steps, without "
        "advice 1.4 (1.1 to 1.7); with the advice switched off it keeps 8.7 (7.5 to 9.8)."
    )
    assert "lie apart" in text and "still makes more than the agent" in text and "One seed" in text


@pytest.mark.parametrize(
    ("arm", "words", "never"),
    [
        (guided(trained=(2.0, 1.5, 2.6)), "overlap: these episodes do not tell the two apart", "apart."),
        (guided(trained=(0.4, 0.2, 0.9)), "The advice cost return", "lie apart"),
        (guided(alone=(1.6, 1.2, 2.1)), "not told apart from the agent that never had any", "still makes more"),
        (guided(steps=900, total=900), "The budgets differ, so the two are not compared", "lie apart"),
    ],
)
def test_what_the_intervals_do_not_show_is_not_said(arm, words, never):
    text = said(PLAIN, arm)
    assert words in text and never not in text.replace(words + ".", "")


def test_the_control_and_runs_of_other_settings_are_arms_of_their_own():
    modes = {"as_trained": (5.0, 4.0, 6.0)}
    control = run("flat", advice="claude@v2#12ab", on=("gate",), modes=modes)
    control.config["advice"]["prior"] = "uniform"
    other = guided(trained=(7.0, 6.0, 8.0))
    other.config["gate"]["kickstart"] = 0.0
    text = said(PLAIN, guided(), guided(trained=(13.1, 12.0, 14.0)), other, control)
    assert "no preference among the skills of claude@v2#12ab (paths B) 5.0 (4.0 to 6.0)" in text
    assert "With the advice of claude@v2#12ab (paths B, with) the agent makes a return of 13.0" in text
    assert "with the advice of claude@v2#12ab (paths B, with) 7.0 (6.0 to 8.0)" in text


def test_two_arms_of_one_advice_are_told_apart_by_a_run_of_each():
    other = guided(trained=(7.0, 6.0, 8.0))
    other.config["gate"]["kickstart"] = 0.0
    text = said(guided(), other)
    assert text.count("(paths B, with)") == 2 and "12.9" in text and "7.0" in text


def test_one_episode_has_no_interval_and_compares_nothing():
    one = guided(trained=(5.1, 5.1, 5.1))
    for body in one.evaluation["final_policy"].values():
        body["episodes"] = 1
    text = said(PLAIN, one)
    assert "makes a return of 5.1 after" in text and "One episode has no interval" in text and "apart" not in text


def test_runs_of_two_observations_are_told_apart_and_never_compared():
    text = verdict(Subject((PLAIN, guided(env=("crafter", "pixels")))))
    assert len(text) == 3 and text[0].startswith("crafter, symbolic observations: Without advice")
    assert text[1].startswith("crafter, pixels observations: With") and "without advice" not in text[1]
    assert "never compared" in text[2]


def test_without_an_evaluation_the_last_training_episodes_speak_and_it_is_said():
    episodes = tuple({"step": 10 * i, "return": 2.0} for i in range(1, 30))
    text = said(run("young", episodes=episodes))
    assert "makes a return of 2.0 (2.0 to 2.0)" in text and "last 20 training episodes" in text
    assert "nothing to say" in said(run("younger"))


def test_unused_advice_an_early_stop_and_damage_stand_at_the_top_and_unused_advice_is_no_advice():
    cut = guided(steps=700, unused_advice="it is a habit", damage=("metrics.jsonl line 3 is not JSON",))
    found = banners(Subject((cut,), notes=("x@v1 is not in the store",)))
    assert [what for what, _ in found] == ["Advice unused", "Not finished", "Left out", "Left out", "Left out"]
    assert "claude@v2#12ab is not in the store here" in found[3][1]
    assert "with: it is a habit" in found[0][1] and "step 700 of 5,000" in found[1][1]
    assert said(cut).startswith("Without advice the agent makes")


def test_an_evaluation_of_an_earlier_step_stands_at_the_top():
    early = guided()
    assert early.evaluation is not None
    early.evaluation["frames"] = 400
    assert banners(Subject((early,)))[0] == (
        "Evaluated earlier", "with: at step 400 of its 5,000; lore eval evaluates it anew"
    )  # fmt: skip
    early.evaluation["frames"] = 5000
    assert "Evaluated earlier" not in dict(banners(Subject((early,))))


def test_the_rows_of_a_run_explain_it_only_where_something_stands_out():
    quiet = {"uncertainty_gate/kappa": ([1, 2], [1.0, 1.0]), "uncertainty_gate/trust": ([1, 2], [1.0, 1.0]),
             "uncertainty_gate/beta": ([1, 2], [0.2, 0.2])}  # fmt: skip
    assert explanations(Subject((guided(series=quiet),))) == []
    loud = {"uncertainty_gate/kappa": ([1, 2], [1.0, 0.4]), "uncertainty_gate/trust": ([1, 200], [1.0, 0.3]),
            "uncertainty_gate/beta": ([1, 2], [0.0, 0.0]), "llm_adapter/coverage_none": ([1], [0.6])}  # fmt: skip
    text = " ".join(explanations(Subject((guided(series=loud),))))
    for words in ("the KL budget was reached", "40 % of its weight", "fell to 0.30 by step 200", "beta 0", "60 %"):
        assert words in text


def test_the_end_of_the_guidance_is_told_and_settings_of_another_schema_are_not_guessed():
    ended = guided()
    ended.config["gate"] |= {"kickstart": 0.0, "beta_max_end": 0.0, "budget_steps": 2000}
    assert "the guidance ended at step 2,000" in " ".join(explanations(Subject((ended,))))
    ended.config["gate"] |= {"kickstart": 1.0, "kickstart_steps": 3000, "kickstart_floor": 0.0}
    assert "the guidance ended at step 3,000" in " ".join(explanations(Subject((ended,))))
    ended.config["gate"]["kickstart_floor"] = 0.1  # kickstarting never ends
    assert "the guidance ended" not in " ".join(explanations(Subject((ended,))))
    ended.config["gate"]["a_knob_of_tomorrow"] = 1
    assert explanations(Subject((ended,))) == []
