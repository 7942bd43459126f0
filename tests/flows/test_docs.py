"""The worked examples of the documentation run as they stand; its links lead somewhere."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from flows.cli import main as cli
from lore.config import load_config
from lore.training.policy import open_advice
from lore_datasets.environments import ENVIRONMENTS
from lore_datasets.errors import SchemeMismatch

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "datasets" / "README.md"])
SITE = (ROOT / "mkdocs.yml").read_text()
MADE = re.findall(r'"(.+\.md)": "(.+\.md)"', (ROOT / ".ci" / "site.py").read_text())
"""(page of the site, file outside docs/ that it is)."""


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
    assert run_page("adding-an-environment.md").split("\n")[:3] == ["coins [1]", "faults []", "steps 120"]


SMALL = {
    "env": ["--steps", "30"],
    "collect": ["--budget", "40"],
    "advise": ["--select.budget", "16"],
    "datasets": ["--episodes", "1", "--workers", "1"],
    "train": ["--steps", "40", "--train.batch-size", "32", "--train.sequence-length", "16", "--train.train-ratio", "4"],
    "eval": ["--episodes", "1"],
    "refresh": ["--visits", "30", "--select.budget", "8", "--revise-worlds", "0", "--epochs", "1", "--steps", "8"],
}
"""What makes each line of the walk on DoorKey small enough for a test."""


def test_the_walk_on_doorkey_runs_line_by_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORE_DATASETS", str(tmp_path / "datasets"))
    [(_, body)] = blocks("adding-an-environment.md", "bash")
    lines = body.strip().split("\n")
    assert len(lines) == 10 and lines[-1].startswith("lore ablate --preset doorkey ")
    short = re.search(r"<!-- doorkey -->\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert short is not None and set(short[1].strip().split("\n")) < set(lines)
    for line in lines[:-1]:  # the study is an hour; its preset is resolved and run small elsewhere
        words = line.split()[1:]
        assert cli.main([*words, *SMALL.get(words[0], [])]) == 0, line
    assert "MiniGrid-DoorKey-5x5-v0" in next((tmp_path / "questions").rglob("*.jsonl")).read_text()
    assert (tmp_path / "runs/doorkey/report.html").is_file() and "Traceback" not in capsys.readouterr().err
    wide = load_config(**{"env.name": "minigrid:MiniGrid-DoorKey-8x8-v0", "advice.dataset": "doorkey", "use_llm": True})
    advice = open_advice(wide)  # of a smaller world of the family
    assert advice is not None and advice.environment.name == "minigrid:MiniGrid-DoorKey-5x5-v0"
    with pytest.raises(SchemeMismatch, match="about minigrid"):
        open_advice(load_config(**{"advice.dataset": "doorkey", "use_llm": True}))


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


def anchors(text: str) -> set[str]:
    """What a heading is called in an address, as mkdocs and GitHub do it."""
    plain = re.sub(r"```.*?```", "", text, flags=re.S)
    titles = [re.sub(r"[`*]|\[|\]\([^)]*\)", "", line) for line in re.findall(r"^#+ (.+)$", plain, flags=re.M)]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def broken(page: Path, text: str) -> list[str]:
    """Relative links of a page that lead nowhere, anchors included; what the site adds to docs/ counts as there."""
    made = {(ROOT / "docs" / name).resolve(): ROOT / source for name, source in MADE}
    out = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        target = made.get(target, target)
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            out.append(link)
    return out


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of rdflib and pandas inside mlcroissant
def test_the_page_about_reading_data_prints_what_it_says_of_row_17(tmp_path, monkeypatch, capsys):
    (tmp_path / "datasets").symlink_to(ROOT / "datasets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORE_DATASETS", str(tmp_path / "store"))
    told = dict(blocks("reading-data.md", "text"))
    programs = blocks("reading-data.md", "python")
    assert [name for name, _ in programs] == list(told) and len(told) == 5
    for name, code in programs:
        (tmp_path / f"{name}.py").write_text(code)
        runpy.run_path(f"{name}.py")
        assert capsys.readouterr().out == told[name], name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_pictures_and_anchors_exist(page):
    assert broken(page, page.read_text()) == []


def test_a_link_that_leads_nowhere_is_found():
    page = ROOT / "docs" / "faq.md"
    good = "[a](faq.md#installing) [b](#errors) [c](reference/format.md#a-store) [d](http://x)"
    assert broken(page, good) == []
    assert broken(page, "[a](gone.md) [b](faq.md#gone) [c](#gone)") == ["gone.md", "faq.md#gone", "#gone"]


def test_every_page_has_its_place_in_the_site_and_nothing_else_has():
    named = set(re.findall(r"[\w./-]+\.md", SITE.partition("\nnav:\n")[2]))
    docs = [page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")]
    pages = {page.as_posix() for page in docs if page.parent.name != "adr"}  # decisions enter by themselves
    assert named == pages | {name for name, _ in MADE}, "enter a new page below nav: in mkdocs.yml"


def test_the_verbs_that_the_readme_names_exist():
    text = (ROOT / "README.md").read_text()
    for line in re.findall(r"^lore (.+)$", text, flags=re.M):
        words = line.split()
        assert words[0] in cli.VERBS or words[1] in cli.GROUPS[words[0]][1], line


def test_the_drawing_is_plain_svg_without_scripts_or_addresses():
    text = (ROOT / "docs" / "architecture.svg").read_text()
    assert "<script" not in text and not re.search(r"https?://(?!www\.w3\.org)", text)
