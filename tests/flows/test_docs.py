"""The worked examples of the documentation run as they stand; its links lead somewhere."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from flows.cli import main as cli
from lore.envs.base import ADAPTERS
from lore_datasets.environments import ENVIRONMENTS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def blocks(page: str, language: str):
    """(file name or "", code) of every fenced block of a language."""
    text = (ROOT / "docs" / page).read_text()
    return re.findall(rf"```{language}(?: file=(\S+))?\n(.*?)```", text, flags=re.S)


@pytest.fixture
def run_page(tmp_path, monkeypatch, capsys):
    """Writes the named files of a page, runs its other blocks one after the other as one program; its output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setitem(ENVIRONMENTS, "corridor", "")  # so that what the page about environments enters goes again
    monkeypatch.setitem(ADAPTERS, "corridor", "")
    return lambda page: _run(page, tmp_path, capsys)


def _run(page: str, folder: Path, capsys) -> str:
    program = []
    for name, code in blocks(page, "python"):
        if name:
            (folder / name).write_text(code)
        else:
            program.append(code)
    (folder / "example.py").write_text("\n".join(program))
    runpy.run_path("example.py", run_name="__main__")
    return capsys.readouterr().out


def test_the_page_about_environments_makes_one_that_skills_and_learner_can_play(run_page):
    assert run_page("adding-an-environment.md").split("\n")[:2] == ["coins [1]", "steps 120"]


def test_the_page_about_backends_makes_one_whose_answers_become_a_version(run_page):
    first, second = run_page("adding-a-backend.md").splitlines()
    name, adviser, rows, _ = first.split()
    assert (name, adviser) == ("favourites", "favourites") and int(rows) > 30
    assert second.split()[:2] == ["thirsty", "adapter:thirsty:Thirsty"] and int(second.split()[2]) > 30


def test_the_page_about_skills_shows_one_that_holds_and_plays(run_page, tmp_path, capsys):
    [(_, body)] = blocks("adding-a-skill.md", "json")
    (tmp_path / "drink_up.json").write_text(body)
    assert "drink_up ends after at most 60 steps" in run_page("adding-a-skill.md")
    assert cli.main(["skills", "lint", "drink_up.json"]) == 0
    assert cli.main(["skills", "run", "drink_up.json", "--episodes", "1"]) == 0
    assert "world 1: " in capsys.readouterr().out


def test_the_page_about_metrics_follows_a_number_to_tensorboard_and_back(run_page):
    first, second = run_page("adding-a-metric.md").splitlines()
    assert first == "{'step': 250, 'train/surprise': 2.0}" and second == "['train/surprise'] 2.0"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_verbs_that_the_readme_names_exist():
    text = (ROOT / "README.md").read_text()
    for line in re.findall(r"^lore (.+)$", text, flags=re.M):
        words = line.split()
        assert words[0] in cli.VERBS or words[1] in cli.GROUPS[words[0]][1], line


def test_the_drawing_is_plain_svg_without_scripts_or_addresses():
    text = (ROOT / "docs" / "architecture.svg").read_text()
    assert "<script" not in text and not re.search(r"https?://(?!www\.w3\.org)", text)
