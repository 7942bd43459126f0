"""The HTML report, made from files alone."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import flows.report
from flows.report.read import read_run, report_advice, success_rates
from flows.report.sections import build_report, render
from lore.config import load_config, to_dict
from lore_datasets.advice import load_advice
from lore_datasets.environments import get_environment
from lore_datasets.errors import NotFound
from lore_datasets.testing import small_advice

FOLDER = Path(flows.report.__file__).parent


def write_run(folder, config, *, episodes=20, seed=0, gated=True):
    """A run folder as the learner writes it."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config": to_dict(config), "advice": "", "machine": {}}))
    names = get_environment("crafter").vocab.achievements
    with (folder / "episodes.jsonl").open("w") as file:
        for i in range(episodes):
            unlocked = {name: int(rng.integers(0, 3)) for name in names[: 3 + i % 5]}
            row = {"step": 100 * (i + 1), "length": 100, "return": float(i % 4), "achievements": unlocked}
            file.write(json.dumps(row) + "\n")
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(250, 2001, 250):
            row = {"step": step, "env/episode_return": step / 1000, "loss/policy": -0.1}
            if gated:
                shares = {"row": 0.1, "goal": 0.5, "model": 0.3, "none": 0.1}
                row |= {f"llm_adapter/coverage_{k}": v for k, v in shares.items()}
                row |= {"uncertainty_gate/beta": 0.2, "uncertainty_gate/avg_kl": 0.09, "synthetic/ratio": 0.2}
                row |= {"options/avg_success_rate": 0.5, "options/collect_wood/success_rate": 0.75}
            file.write(json.dumps(row) + "\n")
    (folder / "progress.jsonl").write_text(json.dumps({"step": 2000, "total": 2000, "updates": 90}) + "\n")
    mode = {"episodes": 2, "return_mean": 2.0, "return_interval": [1.0, 3.0], "score": 3.25, "length_mean": 120.0}
    final = {"as_trained": mode, "agent_alone": {**mode, "return_mean": 1.5}}
    (folder / "evaluation.json").write_text(json.dumps({"run": folder.name, "final_policy": final}))
    return folder


@pytest.fixture(scope="module")
def advice(tmp_path_factory):
    """A small advice version in a store."""
    root = tmp_path_factory.mktemp("store")
    return load_advice(str(small_advice(root, get_environment("crafter"), n=32)), root)


@pytest.fixture(scope="module")
def page(tmp_path_factory, advice):
    """A report about two runs."""
    base = tmp_path_factory.mktemp("runs")
    on = {"gate.enabled": True, "synthetic.enabled": True, "options.enabled": True}
    folders = {
        "none": write_run(base / "none", load_config(observation="symbolic"), gated=False),
        "A+B+C": write_run(base / "abc", load_config(observation="symbolic", dataset=str(advice.ref), **on), seed=1),
    }
    out = build_report(folders, base / "report.html", title="Two arms", advice=advice, commands=["lore demo --seed 3"])
    return out.read_text()


def test_the_page_loads_nothing_from_anywhere(page):
    assert "default-src 'none'" in page
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", page)
    rest = page.replace((FOLDER / "uplot.js").read_text(), "")
    assert len(rest) < len(page) and "http://" not in rest and "https://" not in rest


def test_no_script_runs_but_those_whose_digest_the_policy_names(page):
    allowed = re.findall(r"'(sha256-[^']+)'", page)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert allowed == [f"sha256-{b64encode(sha256(s.encode()).digest()).decode()}" for s in scripts]
    assert "unsafe-inline" not in page.partition("script-src")[2].partition(";")[0]


def test_the_two_protocols_stand_in_two_sections(page):
    final, training = (page.partition(f"<h2>{title}</h2>")[2].partition("</section>")[0]
                       for title in ("Final policy", "Training-time score"))  # fmt: skip
    assert "as trained" not in training and "of 22" in training and "of 22" not in final
    rows = re.findall(r"<td>(as trained|alone)</td><td>2</td><td>([\d.]+)</td>", final)
    assert rows == [("as trained", "2.00"), ("alone", "1.50")] * 2


def test_the_page_says_which_paths_each_run_used_and_which_advice(page, advice):
    assert "A + B + C" in page and str(advice.ref) in page
    assert page.count('<figure class="chart"') == 7 and "Learning curves" in page
    assert "collect_wood" in page and "lore demo --seed 3" in page


def test_sample_frames_name_the_rule_of_a_program_that_speaks_there(tmp_path, advice):
    run = write_run(tmp_path / "a", load_config(observation="symbolic"))
    with_program = replace(advice, programs=(advice.environment.rules.text,))
    text = render([read_run(run, "a")], title="t", advice=with_program)
    assert text.count("program: rule ") == 6
    assert "program: rule" not in render([read_run(run, "a")], title="t", advice=advice)


def test_the_same_files_give_the_same_bytes(tmp_path, advice):
    run = write_run(tmp_path / "a", load_config())
    pages = [render([read_run(run, "a")], title="t", advice=advice) for _ in range(2)]
    assert pages[0] == pages[1]


def test_foreign_text_is_shown_and_never_obeyed(tmp_path):
    run = write_run(tmp_path / "a", load_config())
    config = {"env": {"name": "<script>alert(1)</script>"}, "train": {"seed": "<b>"}}
    (run / "config.json").write_text(json.dumps({"config": config}))
    text = render([read_run(run, "<img src=x onerror=alert(1)>")], title="</title><script>1</script>")
    assert "<script>alert" not in text and "<script>1" not in text and "<img src=x" not in text
    assert "&lt;script&gt;" in text and "\\u003cimg" in text


def test_a_run_without_a_finished_episode_still_makes_a_page(tmp_path):
    folder = tmp_path / "young"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(to_dict(load_config())))
    text = render([read_run(folder)], title="young")
    assert "No episode has finished yet" in text and "<h2>Final policy" not in text


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(NotFound, match=r"no config\.json"):
        read_run(tmp_path)


def test_success_rates_take_counts_by_name_or_by_position():
    by_name = [{"achievements": {"a": 2}}, {"achievements": {"a": 0, "b": 1}}]
    by_position = [{"achievements": [2, 0]}, {"achievements": [0, 1]}]
    assert success_rates(by_name, ("a", "b")) == success_rates(by_position, ("a", "b")) == {"a": 0.5, "b": 0.5}


def test_a_run_that_left_its_advice_unused_says_so(tmp_path):
    folder = write_run(tmp_path / "blind", load_config(observation="symbolic"))
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about | {"unused_advice": "advice x@v1#12 is NOT USED: a habit"}))
    text = render([read_run(folder)], title="one")
    assert 'role="alert"' in text and "blind: advice x@v1#12 is NOT USED: a habit" in text


def test_the_report_shows_the_version_that_the_run_learned_from(tmp_path, own_datasets):
    first = str(small_advice(own_datasets, get_environment("crafter"), n=32))
    config = load_config(observation="symbolic", dataset=first.split("@")[0], **{"gate.enabled": True})
    folder = write_run(tmp_path / "run", config)
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about | {"advice": first}))
    small_advice(own_datasets, get_environment("crafter"), n=40)
    assert str(report_advice({"run": folder}).ref) == first


def test_a_run_that_crashed_in_its_files_shows_what_reads_and_names_the_rest(tmp_path):
    run = write_run(tmp_path / "cut", load_config(observation="symbolic"))
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 2}\n')
    with (run / "episodes.jsonl").open("a") as file:
        file.write('{"step": 2100, "return": "NaN"}\n{"step": null, "return": 3.0}\n')
    (run / "evaluation.json").write_text('{"final_policy": {"as_trained": {"mean": 3.0}, "agent_alone": 5}}')
    (run / "progress.jsonl").write_text('{"step": 1400, "total": 2000, "phase": "train"}\n{"st')
    text = render([read_run(run)], title="cut")
    for said in ("metrics.jsonl line 2 is not JSON", "2 rows of episodes.jsonl without step and return",
                 "evaluation.json is of another form: as_trained, agent_alone left out",
                 "cut stands at step 1,400 of 2,000"):  # fmt: skip
        assert said in text
    assert '<figure class="chart"' in text and "last 20 training episodes" in text


def test_figures_of_another_form_are_left_out_and_named(tmp_path):
    run = write_run(tmp_path / "cut", load_config(observation="symbolic"))
    with (run / "episodes.jsonl").open("a") as file:
        file.write('{"step": 2100, "return": 1.0, "achievements": 3}\n')
    (run / "metrics.jsonl").write_text('{"step": "a", "x": 1}\n{"step": 5, "x": 2}\n')
    whole = {"episodes": 3, "return_mean": 1.0, "return_interval": [None, None], "score": None, "returns": [1.0] * 3}
    unscored = whole | {"score": float("nan")}  # of a world without achievements
    strange = [{"return_interval": [1]}, {"return_interval": "ab"}, {"score": "x"}, {"returns": 3}]
    modes = {"as_trained": whole, "agent_alone": unscored} | {
        f"mode {i}": whole | part for i, part in enumerate(strange)
    }
    (run / "evaluation.json").write_text(json.dumps({"final_policy": modes}))
    text = render([read_run(run)], title="cut")
    for said in ("1 rows of episodes.jsonl without step and return or of another form", "1 rows of metrics.jsonl",
                 "evaluation.json is of another form: mode 0, mode 1, mode 2, mode 3 left out"):  # fmt: skip
        assert said in text


def test_settings_of_another_form_or_environment_are_shown_as_they_are(tmp_path):
    run = write_run(tmp_path / "old", load_config())
    config = {"env": {"name": "atlantis", "observation": "sonar"}, "train": [1, 2], "gate": {"delta_target": "many"},
              "model": {"beta_max": 0.7}}  # fmt: skip
    (run / "config.json").write_text(json.dumps({"config": config}))
    text = render([read_run(run)], title="old")
    assert "atlantis, sonar observations" in text and "gate.beta_max" in text and "many" in text
    assert "<h2>Achievements" not in text and "Return of each training episode" in text


def test_runs_of_two_observations_share_no_chart_and_no_achievement_is_given_to_who_cannot_have_it(tmp_path):
    runs = [read_run(write_run(tmp_path / name, load_config(observation=name), seed=i))
            for i, name in enumerate(("symbolic", "pixels"))]  # fmt: skip
    strange = write_run(tmp_path / "strange", load_config())
    (strange / "config.json").write_text(json.dumps({"config": {"env": {"name": "atlantis", "observation": "x"}}}))
    text = render([*runs, read_run(strange)], title="mixed")
    for setting in ("crafter, symbolic", "crafter, pixels", "atlantis, x"):
        assert text.count(f"trailing mean over 10 episodes ({setting} observations)</figcaption>") == 1
    for data in re.findall(r'<script type="application/json" class="data">(.*?)</script>', text):
        names = {line["label"].partition(",")[0].partition(":")[0] for line in json.loads(data)["lines"]}
        if json.loads(data)["ylabel"] in ("episode return", "score, %"):
            assert len(names & {"symbolic", "pixels", "strange"}) == 1
    achievements = text.partition("<h2>Achievements</h2>")[2].partition("</section>")[0]
    assert achievements.count("<td>–</td>") == achievements.count('<th scope="row">') == 22


def test_hostile_text_in_every_field_is_shown_and_never_markup(tmp_path):
    bad = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e"
    run = write_run(tmp_path / "a", load_config())
    config = to_dict(load_config())
    config["env"] |= {"name": bad, "observation": bad}
    config["advice"]["dataset"] = bad
    config["gate"]["enabled"] = True
    (run / "config.json").write_text(json.dumps({"config": config, "advice": bad, "unused_advice": bad}))
    mode = {"episodes": 2, "return_mean": 2.0, "return_interval": [1.0, 3.0], "score": 3.0, "length_mean": 9.0}
    (run / "evaluation.json").write_text(json.dumps({"final_policy": {bad: mode, "as_trained": mode}}))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3000, f"options/{bad}/success_rate": 1.0, "uncertainty_gate/beta": 0.5}) + "\n")
    text = render([read_run(run, bad)], title=bad, commands=[bad], notes=[bad])
    assert "<script>alert" not in text and "<img" not in text and "onerror=alert(2)&gt;" in text
    assert len(re.findall("<script", text)) == len(re.findall("</script>", text))


def test_advice_that_the_store_lacks_is_said_on_the_page(tmp_path):
    run = write_run(tmp_path / "a", load_config())
    about = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(about | {"advice": "gone@v3#0123456789ab"}))
    assert "gone@v3#0123456789ab is not in the store here" in render([read_run(run)], title="t")


def test_a_long_run_makes_a_small_page(tmp_path):
    run = write_run(tmp_path / "long", load_config(), episodes=6000)
    text = render([read_run(run)], title="long")
    assert len(text) < 300_000
    [data] = [d for d in re.findall(r'class="data">(.*?)</script>', text) if "episodes" in d]
    spec = json.loads(data)
    assert len(spec["x"]) <= 600 and all(len(line["values"]) == len(spec["x"]) for line in spec["lines"])
