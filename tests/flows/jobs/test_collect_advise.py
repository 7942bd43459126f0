"""The steps behind the flows: each can be repeated without harm, and goes on after a stop."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flows.cli import main as cli
from flows.config import AdviceJob, CollectJob, DemoJob, EvaluateJob
from flows.jobs.advise import _store, advise_states, asking, estimate
from flows.jobs.collect import _next_seed, play_states
from flows.jobs.distil import coverage, distil_model
from flows.terminal import open_terminal, use
from lore.config import EnvConfig
from lore.envs import make_env
from lore.options.play import GoalPlayer
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, Busy, ConfigError, Waiting
from lore_datasets.store.store import Store
from pipeline.config import AdviseConfig, AskConfig, CollectConfig, SelectConfig, to_dict
from pipeline.llm import backend_from, get_backend
from pipeline.llm.backends.rules import rule_book
from pipeline.llm.base import Prompt, Response
from pipeline.llm.journal.journal import Journal
from pipeline.rounds.collect import HalfAndHalf, RandomPolicy, collect, commit_states

PLAY = CollectJob("play", CollectConfig(budget=90, stride=2))


def job_about(states, **options):
    """A job without questions for skills, whose trials take a second."""
    advise = AdviseConfig(skill_questions=0)
    return AdviceJob(str(states), "talk", select=SelectConfig(budget=40), advise=advise, **options)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """States and one advice version about forty of them."""
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORE_DATASETS", str(root))
        states = play_states(PLAY)
        return root, states, advise_states(job_about(states))


@pytest.fixture(autouse=True)
def there(stored, monkeypatch):
    monkeypatch.setenv("LORE_DATASETS", str(stored[0]))


def test_the_same_play_is_stored_once(stored):
    assert play_states(PLAY) == stored[1]
    assert Store(stored[0]).versions("play") == [1]


def test_a_dataset_of_another_kind_is_refused_before_any_work(stored, monkeypatch):
    for module in ("lore.envs.make_env", "pipeline.llm.backend_from"):
        monkeypatch.setattr(module, lambda *a, **k: pytest.fail("work was begun"))
    with pytest.raises(BadInput, match="talk is a dataset of kind advice, not states"):
        play_states(CollectJob("talk", CollectConfig(budget=90)))
    with pytest.raises(BadInput, match="play is a dataset of kind states, not advice"):
        advise_states(AdviceJob(str(stored[1]), "play"))


def test_all_three_players_contribute(stored):
    manifest = Store(stored[0]).manifest(stored[1])
    assert manifest.counts["by_source"] == {"random": 30, "rules": 30, "half_and_half": 30}


def test_an_interrupted_collection_is_continued_to_the_same_size(stored):
    environment = get_environment("crafter")
    config = CollectConfig(budget=60, stride=2, seed=7)

    def rules():
        return GoalPlayer(rule_book(environment), environment.skills, environment.vocab)

    calls = []

    class Stopping(RandomPolicy):
        def __call__(self, view, rng):
            calls.append(1)
            if len(calls) > 20:
                raise KeyboardInterrupt
            return super().__call__(view, rng)

    players = {"random": Stopping(), "rules": rules(), "half_and_half": HalfAndHalf(rules())}
    game = EnvConfig(observation="symbolic")
    part = collect(lambda: make_env(game, 7), players, 60, np.random.default_rng(7), stride=2)
    assert 0 < len(part) < 60 and not part.complete
    commit_states(part, environment, Store(), "broken-off", to_dict(config))
    ref = play_states(CollectJob("broken-off", config))
    manifest = Store().manifest(ref)
    assert ref.version == 2 and manifest.counts["rows"] == 60 and manifest.provenance["complete"]


def test_asking_again_makes_no_new_version_and_other_states_make_a_child(stored):
    root, states, first = stored
    assert advise_states(job_about(states)) == first
    other = play_states(CollectJob("more", CollectConfig(budget=60, seed=1)))
    second = advise_states(job_about(other))
    assert second.version == 2 and {str(first), str(other)} <= set(Store(root).manifest(second).parents)
    keys = Store(root).open(second, wanted=lambda path: path.endswith("key_fine")).arrays
    assert len(keys) == 2 and not set(keys["round-000/key_fine"]) & set(keys["round-001/key_fine"])


def test_the_adviser_that_was_named_is_checked_before_nothing_is_left_to_ask(stored, capsys, monkeypatch):
    """The same states by another adviser are refused; the line that says all is advised says by whom."""
    for other in (AskConfig(backend="random"), AskConfig(backend="openai", model="m", base_url="http://127.0.0.1:9")):
        with pytest.raises(BadInput, match=r"talk@v\d+#\w+ is advised by rules"):
            advise_states(job_about(stored[1], ask=other))
    with pytest.raises(ConfigError, match="unknown backend"):
        advise_states(job_about(stored[1], ask=AskConfig(backend="oracle")))
    words = ["advise", "--states", str(stored[1]), "--dataset", "talk", "--select.budget", "40", "--no-distil"]
    assert cli.main(words) == 0
    assert "is advised in talk@v" in (said := capsys.readouterr().out) and "already, by rules" in said
    gemini = ["--ask.backend", "gemini", "--ask.allow-mixed-advisers"]
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    assert cli.main([*words, *gemini]) == 2
    assert "backend gemini needs a key" in capsys.readouterr().err


def test_list_and_show_name_every_adviser_with_models_rows_and_cost(stored, capsys):
    states = play_states(CollectJob("play", CollectConfig(budget=60, stride=2, seed=3)))
    one = AdviceJob(str(states), "both", select=SelectConfig(budget=10))
    advise_states(one)
    mixed = AskConfig(backend="random", allow_mixed_advisers=True)
    ref = advise_states(AdviceJob(str(states), "both", select=SelectConfig(budget=30), ask=mixed))
    assert cli.main(["datasets", "show", str(ref)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "advised by 1. rules (rules), 10 rows, 0.0000 USD; 2. random (random), " in said
    assert cli.main(["datasets", "list"]) == 0
    assert [line.split()[3:5] for line in capsys.readouterr().out.splitlines() if str(ref) in line] == [
        ["rules,", "random"]
    ]


def test_a_round_says_what_the_journal_had_paid_before_and_after(stored, capsys):
    words = ["advise", "--states", str(stored[1]), "--dataset", "told", "--select.budget", "5", "--no-distil"]
    assert cli.main(words) == 0
    assert "questions for 0.0000 USD; paid in all 0.0000 USD, 0.0000 USD before" in capsys.readouterr().out
    assert cli.main([*words, "--dry-run"]) == 0
    assert "paid so far 0.0000 USD" in capsys.readouterr().out


def test_a_dry_run_with_nothing_left_to_ask_says_what_the_journal_has_paid(stored, tmp_path, capsys):
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        failed = Response("", finish="error", error="HTTP 500", price_usd=1.5)
        journal.put([("key", Prompt("prior", "system", "user"), failed)], get_backend("rules"))
    words = ["advise", "--states", str(stored[1]), "--dataset", "talk", "--select.budget", "40", "--dry-run"]
    assert cli.main([*words, "--journal", str(path)]) == 0
    said = capsys.readouterr().out
    assert "0 questions, 0 not asked before" in said and "paid so far 1.5000 USD" in said


def test_advice_is_refused_for_what_are_no_states(stored):
    with pytest.raises(BadInput, match="is of kind advice, not states"):
        advise_states(AdviceJob(str(stored[2]), "x"))


def test_a_dry_run_counts_questions_and_writes_nothing(stored, capsys):
    root, states, _ = stored
    before = sorted(str(p) for p in root.rglob("*") if p.is_file())
    found = estimate(AdviceJob(str(states), "fresh-name", select=SelectConfig(budget=10), journal="nowhere.sqlite"))
    assert found.new == found.questions >= 10 and found.price_usd == 0.0
    assert cli.main(["advise", "--states", str(states), "--dataset", "fresh-name", "--dry-run"]) == 0
    assert "questions" in capsys.readouterr().out
    assert sorted(str(p) for p in root.rglob("*") if p.is_file()) == before


def test_the_advice_model_is_made_once_and_its_figures_are_kept(stored):
    ref = stored[2]
    model = distil_model(ref, epochs=1)
    assert distil_model(ref, epochs=1) == model
    assert 0 <= coverage(ref)["model_agreement"] <= 1


@pytest.mark.parametrize("backend", ["blind", "random", "degraded"])
def test_controls_are_advisers_like_any_other(backend, stored):
    job = AdviceJob(
        str(stored[1]), f"control-{backend}", select=SelectConfig(budget=15), ask=AskConfig(backend=backend)
    )
    ref = advise_states(job)
    assert Store(stored[0]).manifest(ref).provenance["adviser"].startswith(backend)


def test_jobs_check_their_values():
    for make in (lambda: EvaluateJob(episodes=0), lambda: DemoJob(steps=-1), lambda: DemoJob(seed=True)):
        with pytest.raises(ConfigError, match="out of range"):
            make()


def test_the_demo_s_presets_fill_what_was_left_open():
    full, quick = DemoJob().resolved(), DemoJob(quick=True, steps=77).resolved()
    assert full.states >= 2000 and full.folder == "runs/demo" and full.dataset == "crafter-demo"
    assert quick.steps == 77 and 0 < quick.states < full.states and quick.folder == "runs/demo-quick"


def test_a_service_gets_the_limits_of_the_question_settings():
    ask = AskConfig(backend="openai", model="m", base_url="http://127.0.0.1:9/v1", timeout_s=1.5, concurrency=3)
    llm = backend_from(ask)
    assert (llm.name, llm.timeout_s, llm.concurrency) == ("openai:m", 1.5, 3)


def test_a_schedule_of_collect_takes_the_next_seed_each_time(stored):
    played, store = [], Store(stored[0])
    job = CollectJob("nightly", CollectConfig(budget=6, stride=2, seed=3))
    for _ in range(2):
        played.append(play_states(job, moves_on=True))
    assert [r.version for r in played] == [1, 2] and played[0].digest != played[1].digest
    assert [store.manifest(f"nightly@v{n}").config["seed"] for n in (1, 2)] == [3, 4]
    assert _next_seed(_store(), "nightly", to_dict(CollectConfig(budget=7, stride=2, seed=3))) == 3
    assert play_states(CollectJob("nightly", CollectConfig(budget=6, stride=2, seed=4))) == played[1]


def test_two_that_buy_for_one_dataset_are_refused_whatever_their_journals(stored, tmp_path):
    with asking(_store(), "talk"), pytest.raises(Busy, match="somebody asks for talk already: process"):
        advise_states(job_about(stored[1], journal=str(tmp_path / "another.sqlite")))
    assert advise_states(job_about(stored[1])).name == "talk", "free again"


def test_answers_that_come_after_a_partial_round_are_read_by_the_same_command(stored, tmp_path, capsys):
    folder = tmp_path / "questions"
    ask = AskConfig(backend="file", folder=str(folder), partial=True)
    advise = AdviseConfig(kinds="prior", skill_questions=0, orders=1)
    job = AdviceJob(str(stored[1]), "by-hand", select=SelectConfig(budget=8), ask=ask, advise=advise,
                    journal=str(tmp_path / "journal.sqlite"))  # fmt: skip
    with pytest.raises(Waiting):
        advise_states(job)
    keys = [json.loads(line)["custom_id"] for line in (folder / "openai-001.jsonl").read_text().splitlines()]
    good = json.dumps({"ranked": ["explore"], "confidence": 0.9, "reason": "because"})

    def answer(texts):
        rows = [json.dumps({"key": key, "text": text}) for key, text in zip(keys, texts, strict=False)]
        (folder / "answers").mkdir(exist_ok=True)
        (folder / "answers" / "a.jsonl").write_text("\n".join(rows) + "\n")
        with use(open_terminal()):
            ref = advise_states(job)
        rows = Store(stored[0]).manifest(ref).counts["rows"]
        return ref.version, rows, capsys.readouterr().out

    assert answer([good] * 3)[:2] == (1, 3)
    with pytest.raises(Waiting, match=f"0 of {len(keys) - 3} answered"):
        answer([good] * 3)
    version, rows, told = answer([good] * 3 + ["no idea"] * (len(keys) - 3))
    assert (version, rows) == (1, 3) and f"{len(keys) - 3} selected states have no usable answer" in told
    assert answer([good] * len(keys))[:2] == (2, len(keys))
    assert "every selected state is advised" in answer([good] * len(keys))[2]


def test_questions_for_new_skills_are_answered_by_file_before_those_in_which_they_stand(stored, tmp_path):
    folder = tmp_path / "questions"
    job = AdviceJob(str(stored[1]), "by-hand-2", select=SelectConfig(budget=3), journal=str(tmp_path / "j.sqlite"),
                    ask=AskConfig(backend="file", folder=str(folder)),
                    advise=AdviseConfig(kinds="prior,skills", orders=1))  # fmt: skip

    def kinds():
        with pytest.raises(Waiting):
            advise_states(job)
        return [json.loads(line)["kind"] for line in (folder / "questions.jsonl").read_text().splitlines()]

    first = kinds()
    assert set(first) == {"skills"}
    keys = [json.loads(line)["custom_id"] for line in (folder / "openai-001.jsonl").read_text().splitlines()]
    rows = [json.dumps({"key": key, "text": json.dumps({"skills": []})}) for key in keys]
    (folder / "answers" / "a.jsonl").write_text("\n".join(rows) + "\n")
    assert kinds().count("prior") == 3
