"""LoRe installed as a user does it: what a wheel carries, and a checkout with its pins by pip and by uv."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = [ROOT / name for name in ("lore", "lore_rl", "pipeline", "flows", "datasets/lore_datasets")]


def beside_code() -> list[Path]:
    """Every file of the packages that is no code."""
    found = (path for package in PACKAGES for path in package.rglob("*") if path.is_file())
    return [path for path in found if path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts]


def test_every_file_beside_the_code_enters_the_wheel():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    files = beside_code()
    assert len(files) > 15
    for path in files:
        package = next(folder for folder in path.parents if (folder / "__init__.py").exists())
        taken = {each for pattern in patterns for each in package.glob(pattern)}
        assert path in taken, f"{path.relative_to(ROOT)}: add a pattern to package-data in pyproject.toml"


def test_the_extras_that_the_page_names_are_those_that_there_are():
    page = (ROOT / "docs" / "installing.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, flags=re.M)) == set(PROJECT["project"]["optional-dependencies"])


def run(*words: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints; AssertionError with its errors when it fails. Nothing of this checkout is on its path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LORE_", "COV_"))}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env={**kept, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{shlex.join(map(str, words))}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def fresh(folder: Path) -> Path:
    """The bin of a new virtual environment of this Python."""
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    return folder / "bin"


def checkout(folder: Path) -> Path:
    """The tracked files and those that are new, as a clone would have them; git's own ignored files stay behind."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def pip_settings() -> dict[str, list[str]]:
    """What pip was told on this machine, by setting: uv reads neither its files nor its variables."""
    told: dict[str, list[str]] = {}
    for line in run(sys.executable, "-m", "pip", "config", "list", cwd=ROOT).splitlines():
        name, _, value = line.partition("=")
        told.setdefault(name.rpartition(".")[2], []).extend(value.strip("'\"").split())
    return told


def use_what_is_installed(bin: Path) -> None:
    """Let an environment see the packages of this one, its own first; LoRe itself stays out of it."""
    [site] = (bin.parent / "lib").glob("python*/site-packages")
    here = Path(sys.prefix, "lib", site.parent.name, "site-packages")
    (site / "beside.pth").write_text(f"{here}\n")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_wheel_goes_the_whole_walk_far_from_the_checkout(tmp_path):
    source, away = checkout(tmp_path / "source"), tmp_path / "away"
    away.mkdir()
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        source,
        cwd=away,
    )
    [wheel] = tmp_path.glob("lore_rl-*.whl")
    bin = fresh(tmp_path / "env")
    use_what_is_installed(bin)
    run(bin / "python", "-m", "pip", "install", "-q", "--no-deps", wheel, cwd=away)
    lore = bin / "lore"
    where = run(bin / "python", "-c", "import lore, lore_datasets as d; print(lore.__file__, d.__file__)", cwd=away)
    assert all(Path(word).is_relative_to(tmp_path / "env") for word in where.split())
    assert run(lore, "--version", cwd=away).strip() == f"lore {PROJECT['project']['version']}"
    listed = run(lore, "datasets", "list", cwd=away)
    assert all(name in listed for name in ("crafter-rules", "crafter-claude", "crafter-qwen1.5b"))
    assert json.loads(run(lore, "datasets", "show", "crafter-claude", "--card", "croissant", cwd=away))["name"]
    run(lore, "collect", "--dataset", "play", "--budget", "60", cwd=away)
    # every kind of question is rendered from its template
    base = ["--states", "play", "--dataset", "talk", "--ask.backend", "file", "--ask.folder", "asked"]
    run(lore, "advise", *base, "--kinds", "program,prior,plan,skills", cwd=away)
    asked = [json.loads(line) for line in (away / "asked" / "questions.jsonl").read_text().splitlines()]
    assert len(asked) > 60
    run(lore, "train", "--preset", "smoke", "--folder", "runs/a", "--steps", "120", "--quiet", cwd=away)
    run(lore, "report", "runs/a", "--out", "report.html", cwd=away)
    page = (away / "report.html").read_text()
    assert "--" in page.partition("<style>")[2].partition("</style>")[0] and "<script>" in page


def installed(bin: Path, away: Path) -> None:
    assert "crafter-claude" in run(bin / "lore", "datasets", "list", cwd=away)
    run(bin / "python", "-c", "import lore_rl, torch, crafter, icechunk; print(lore_rl.__all__)", cwd=away)


def pins(bin: Path, away: Path, *words: str | Path) -> dict[str, str]:
    rows = json.loads(run(*words, "--format", "json", cwd=away, VIRTUAL_ENV=str(bin.parent)))
    return {re.sub(r"[-_.]+", "-", row["name"]).lower(): row["version"].partition("+")[0] for row in rows}


def wanted() -> dict[str, str]:
    lines = [line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_pip_installs_a_checkout_with_its_pins(tmp_path):
    source, bin = checkout(tmp_path / "source"), fresh(tmp_path / "env")
    run(bin / "python", "-m", "pip", "install", "-q", "-e", ".", "-c", "constraints.txt", cwd=source)
    installed(bin, tmp_path)
    found = pins(bin, tmp_path, bin / "python", "-m", "pip", "list")
    assert found and {name: found[name] for name in found.keys() & wanted().keys()}.items() <= wanted().items()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_uv_installs_a_checkout_with_its_pins(tmp_path):
    source, bin = checkout(tmp_path / "source"), fresh(tmp_path / "env")
    tools, told = fresh(tmp_path / "tools"), pip_settings()
    run(tools / "python", "-m", "pip", "install", "-q", "uv", cwd=tmp_path)
    index = [word for each in told.get("index-url", []) for word in ("--default-index", each)]
    links = [word for each in dict.fromkeys(told.get("find-links", [])) for word in ("--find-links", each)]
    about = {"VIRTUAL_ENV": str(bin.parent)} | ({"SSL_CERT_FILE": told["cert"][0]} if "cert" in told else {})
    words = ["pip", "install", "-q", "-e", ".", "-c", "constraints.txt", *index, *links]
    run(tools / "uv", *words, cwd=source, **about)
    installed(bin, tmp_path)
    found = pins(bin, tmp_path, tools / "uv", "pip", "list")
    assert found and {name: found[name] for name in found.keys() & wanted().keys()}.items() <= wanted().items()
