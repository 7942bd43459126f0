"""The player of recorded episodes: what it embeds, what it says of recordings that are not whole, how it is driven."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from flows.report.page import page as whole_page
from flows.report.read import RunData, Subject
from flows.report.sections import render
from flows.report.viewer import BUDGET, TOP, episode_data, recorded_episodes
from lore.evaluation.recording import AHEAD, SCHEMA
from lore.gate.gate import kl, softmax
from lore_datasets.environments import get_environment
from lore_datasets.testing import random_states

CRAFTER = get_environment("crafter")
VOCAB = CRAFTER.vocab
SKILLS = ("collect_wood", "collect_drink")


def recorded(path, frames=80, seed=0, **changes):
    """Write an episode as a Recorder does; at step 57 a rule of the program decided, at 50 an option was called."""
    rng, actions = np.random.default_rng(seed), len(VOCAB.actions)
    width = actions + 2
    states = random_states(CRAFTER, frames, rng).pack()
    at = CRAFTER.layout.offsets()["unlocked"]
    states[:, at] = 0
    states[30:, at.start] = 1
    own, advice = rng.normal(size=(frames, width)), rng.uniform(-3, 3, (frames, width))
    allowed = np.ones((frames, width), bool)
    allowed[:, -1] = False
    beta = np.where(np.arange(frames) % 2, 0.0, rng.uniform(0.2, 1.5, frames)).astype(np.float32)
    beta[57] = 1.25
    mixed = np.array([softmax(o + b * a, m) for o, b, a, m in zip(own, beta, advice, allowed, strict=True)])
    entry = np.array([rng.choice(width, p=p) for p in mixed])
    held = (np.arange(frames) > 57) & (np.arange(frames) < 63)
    entry[held] = -1
    entry[-1] = -1
    action = np.where(entry < actions, entry, 1)
    action[held], action[-1] = 3, -1
    charge, advised = np.full(frames, "policy", "U8"), np.zeros(frames, bool)
    skill, since = np.full(frames, -1), np.arange(frames)
    charge[50:55], skill[50:55], since[50:55] = "option", 0, 50
    charge[57:63], advised[57:63], skill[57:63], since[57:63] = "advice", True, 1, 57
    goals = np.zeros((frames, actions + 2), np.float16)
    goals[:, -1], goals[:, 2] = 0.75, 0.25
    spoke = np.full(frames, "rule 4 collect_wood: wood comes first", "U80")
    spoke[57] = "rule 3 collect_drink: thirst kills"
    cells = int(np.prod(VOCAB.view))
    arrays = {
        "schema": SCHEMA, "state": states, "action": action.astype(np.int16),
        "reward": (rng.random(frames) < 0.1).astype(np.float32), "value": rng.normal(size=frames).astype(np.float32),
        "entropy": rng.random(frames).astype(np.float32), "beta": beta, "uncertainty": beta / 3, "confidence": beta / 2,
        "kl": np.array([kl(m, softmax(o, a)) for m, o, a in zip(mixed, own, allowed, strict=True)], np.float32),
        "charge": charge, "advised": advised, "skill": skill.astype(np.int16), "since": since.astype(np.int32),
        "entry": entry.astype(np.int16), "followed": advised & ~held, "row": np.full(frames, -1, np.int32),
        "logits": own.astype(np.float32), "advice_logits": advice.astype(np.float32), "allowed": allowed,
        "mixed": mixed.astype(np.float32), "spoke": spoke, "goals": goals,
        **{f"ahead_{k}": np.roll(states[:, :cells], k, 0) for k in AHEAD},
        "actions": VOCAB.actions, "skills": SKILLS, "entries": (*VOCAB.actions, "collect_wood", ""),
        "achievements": VOCAB.achievements, "advice": "talk@v1#aaaaaaaaaaaa", "environment": "crafter",
        "return": 3.25, "place": "median", "number": 2, "trained": 1000,
    }  # fmt: skip
    for name, value in changes.items():
        if value is None:
            del arrays[name]
        else:
            arrays[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, **{name: np.asarray(value) for name, value in arrays.items()})
    return path


def run_in(folder, **more):
    return RunData(
        "mine", folder, {"env": {"name": "crafter"}}, "talk@v1#aaaaaaaaaaaa", progress={"step": 1000}, **more
    )


def floats(text, kind=np.float32):
    return np.frombuffer(base64.b64decode(text), kind)


def test_what_is_shown_of_a_choice_adds_up_to_the_shown_mixture(tmp_path):
    found = episode_data(recorded(tmp_path / "recordings" / "episode-0002.npz"), run_in(tmp_path))
    shape = (len(found["decided"]), TOP)
    own, added, mixed = (floats(found[n]).reshape(shape) for n in ("own", "added", "mixed"))
    possible = floats(found["possible"], np.uint8).reshape(shape)
    level = floats(found["level"], np.float64)[:, None]
    gap = (own + added - (np.log(np.maximum(mixed, 1e-30)) + level))[possible > 0]
    assert len(gap) > 500 and np.abs(gap).max() < 1e-5 and found["notes"] == []
    shown = floats(found["shown"], np.uint8).reshape(shape)
    assert all(drawn in row for drawn, row in zip(found["drawn"], shown, strict=True))
    assert found["who"][57:63] == "aaaaaa" and found["who"][50:55] == "ooooo" and found["since"][60] == 57
    assert found["texts"][found["spoke"][57]] == "rule 3 collect_drink: thirst kills"
    assert found["goals"][57][0] == [len(VOCAB.actions) + 1, 75] and found["unlocked"] == [(30, VOCAB.achievements[0])]


OTHER_FORMS = {
    "of an older form": (dict.fromkeys(("schema", "logits", "entry", "since", "advised", "goals", "ahead_1")),
                         "older LoRe"),
    "of a newer form": ({"schema": 9, "thoughts": np.zeros(3)}, "newer LoRe (version 9"),
    "with frames missing": ({"value": np.zeros(41, np.float32)}, "value ends after 41 of 80"),
    "of another advice": ({"advice": "talk@v2#bbbbbbbbbbbb"}, "the run reads talk@v1#aaaaaaaaaaaa now"),
    "of another step": ({"trained": 400}, "Recorded after 400 steps"),
    "of another game": ({"environment": "moonlander"}, "states are of another version of moonlander"),
    "of another vocabulary": ({"state": np.zeros((80, 7), np.uint8)}, "states are of another version of crafter"),
    "with values that are not finite": ({"value": np.full(80, np.nan, np.float32)}, "not finite"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER_FORMS)
def test_of_a_recording_that_is_not_whole_the_rest_is_shown_and_what_is_missing_said(tmp_path, case):
    changes, said = OTHER_FORMS[case]
    found = episode_data(recorded(tmp_path / "recordings" / "episode-0002.npz", **changes), run_in(tmp_path))
    assert any(said in note for note in found["notes"]), found["notes"]
    assert len(found["action"]) == (41 if "missing" in case else 80) == len(found["who"])
    json.dumps(found, allow_nan=False)


def test_files_that_cannot_be_shown_are_named_and_the_others_shown(tmp_path):
    recorded(tmp_path / "recordings" / "episode-0002.npz")
    recorded(tmp_path / "recordings" / "episode-0003.npz", action=None)
    recorded(tmp_path / "recordings" / "episode-0004.npz", mixed=np.zeros((80, 3), np.float32))
    (tmp_path / "recordings" / "episode-0005.npz").write_bytes(b"half a file")
    html = str(recorded_episodes(Subject((run_in(tmp_path),))).html)
    assert html.count("Not shown.") == 3 and html.count("<option") == 1 + 3  # one episode, three speeds
    assert all(f"episode-000{n}.npz" in html for n in (3, 4, 5))


def test_without_a_recording_the_page_says_how_to_make_one(tmp_path):
    section = recorded_episodes(Subject((run_in(tmp_path),)))
    assert f"lore eval {tmp_path} --record 3" in section.html and section.scripts == ()


def test_hostile_names_stay_text(tmp_path):
    evil = "</script><script>alert(1)</script>"
    recorded(tmp_path / "recordings" / "episode-0002.npz", spoke=np.full(80, evil), place=evil,
             entries=(evil,) * (len(VOCAB.actions) + 2))  # fmt: skip
    text = whole_page(evil, "", [recorded_episodes(Subject((run_in(tmp_path),)))])
    assert "<script>alert" not in text and "\\u003c/script\\u003e" in text


def test_a_long_episode_is_cut_to_its_share_and_the_page_stays_small(tmp_path):
    path = recorded(tmp_path / "recordings" / "episode-0002.npz", frames=12_000)
    found = episode_data(path, run_in(tmp_path), 1_000_000)
    assert 500 < len(found["action"]) < 12_000 and found["length"] == 11_999
    assert re.search(r"first [\d,]+ of 11,999 steps; episode-0002.npz holds all", found["notes"][0])
    assert 0.6e6 < len(json.dumps(found)) < 1_150_000
    assert BUDGET < 3_000_000


def test_frames_of_pixels_travel_as_one_picture_each(tmp_path):
    film = np.random.default_rng(0).integers(0, 255, (80, 64, 64, 3), np.uint8)
    aheads = {f"ahead_{k}": film for k in AHEAD}
    found = episode_data(recorded(tmp_path / "recordings" / "episode-0002.npz", image=film, **aheads), run_in(tmp_path))
    assert set(found["sheets"]) == {"real", *map(str, AHEAD)} and found["sheet_size"] == [64, 64]
    assert all(sheet.startswith("data:image/webp;base64,") for sheet in found["sheets"].values())


def test_a_crashed_run_still_plays_its_recording(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    recorded(tmp_path / "recordings" / "episode-0002.npz")
    text = render([RunData("crashed", tmp_path)], title="crashed")
    assert "Watch an episode" in text and "crashed: median, return 3.25" in text


def test_the_page_opens_with_the_best_episode_of_all_runs(tmp_path):
    for name, result in (("none", 1.0), ("advised", 9.0)):
        recorded(tmp_path / name / "recordings" / "episode-0002.npz", **{"return": result})
    text = render([run_in(tmp_path / name) for name in ("none", "advised")], title="two")
    assert re.search(r'<option value="0">[^<]*return 9', text) and re.search(r'<option value="1">[^<]*return 1', text)


@pytest.mark.slow
def test_the_player_is_driven_by_keys_and_its_sums_hold(tmp_path, browser):
    recorded(tmp_path / "recordings" / "episode-0001.npz", seed=1)
    recorded(tmp_path / "recordings" / "episode-0002.npz", frames=65, place="best")
    (tmp_path / "report.html").write_text(render([run_in(tmp_path)], title="player"))
    browser.open(tmp_path / "report.html")
    step = lambda: int(browser.run("document.querySelector('.viewer').dataset.step"))  # noqa: E731
    why = lambda: browser.run("document.querySelector('.viewer-why').textContent")  # noqa: E731
    browser.run("document.querySelector('.viewer').focus()")
    for key, at in (("ArrowRight", 1), ("PageDown", 11), ("ArrowLeft", 10), ("End", 79), ("PageUp", 69), ("Home", 0),
                    ("u", 30), ("d", 50)):  # fmt: skip
        browser.press(key)
        assert step() == at, key
    browser.run("document.activeElement.blur(), document.querySelector('.viewer').scrollIntoView()")
    for key, at in (("ArrowLeft", 49), ("PageDown", 49), ("ArrowRight", 50)):  # the page's own key scrolls it
        browser.press(key)
        assert step() == at, key
        browser.run("document.querySelector('.viewer').scrollIntoView()")
    browser.run("const s = document.querySelector('.viewer-slider'); s.value = 57; s.dispatchEvent(new Event('input'))")
    assert step() == 57 and "The advice decided (weight beta 1.25)" in why()
    assert "rule 3 collect_drink (“thirst kills”) spoke" in why() and "goal collect_drink" in why()
    browser.press("ArrowRight")
    assert "The advice decided at step 57 and its choice is held" in why()
    sums = """[...document.querySelectorAll('.viewer-choice tbody tr:not(.never)')].map((row) => {
      const cells = [...row.querySelectorAll('td.n')].slice(0, 3);
      const text = (c) => parseFloat(c.textContent.replace('−', '-'));
      const exact = cells.map((c) => parseFloat(c.dataset.value));
      return [exact[0] + exact[1] - exact[2], text(cells[0]) + text(cells[1]) - text(cells[2])]; })"""
    rows = browser.run(sums)
    assert len(rows) >= 8 and all(abs(gap) < 1e-5 for row in rows for gap in row)
    painted = """[...document.querySelectorAll('.viewer canvas')].map((c) =>
      new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size)"""
    assert min(browser.run(painted)) > 3
    browser.run("const p = document.querySelector('.viewer-pick'); p.value = 1; p.dispatchEvent(new Event('change'))")
    assert step() == 0 and "of 64" in browser.run("document.querySelector('.viewer-of').textContent")
    browser.run("document.querySelector('.viewer-speed').value = 30; document.querySelector('.viewer').focus()")
    browser.press(" ")
    browser.run("new Promise(done => setTimeout(done, 3200))")
    assert step() == 64 and "▶ play" in browser.run("document.querySelector('.viewer-play').textContent")
    assert browser.complaints() == [] and not browser.is_cut()
    for width in (1440, 1200, 390):
        for dark in (False, True):
            browser.open(tmp_path / "report.html", width, dark=dark)
            browser.run("document.querySelector('.viewer').focus()")
            browser.press("d")
            assert not browser.is_cut() and browser.complaints() == []
            browser.shot(tmp_path / f"viewer-{width}-{'dark' if dark else 'light'}.png")
            names = "[...document.querySelectorAll('.viewer-choice tbody th')]"
            assert browser.run(f"{names}.map(th => th.textContent = 'skeleton'.repeat(9)).length") > 5
            assert not browser.is_cut()  # a long name is scrolled to, the page stays as wide as the window
