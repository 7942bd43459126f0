"""docs/learner.md tells the truth: the tests it names exist, its figures are those of the code."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.losses import table
from lore.config import load_config
from lore.options.controller import Controller
from lore.replay.ring import Replay, latent_fields
from lore.sizes import SIZES
from lore_datasets.environments import get_environment

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "learner.md").read_text()


def test_every_test_that_the_page_names_exists():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE)
    assert len(named) >= 30
    files = {path.name: path.read_text() for path in (ROOT / "tests" / "lore").rglob("test_*.py")}
    missing = [f"{file}::{name}" for file, name in named if f"\ndef {name}(" not in files.get(file, "")]
    assert missing == []


def test_every_row_of_the_table_names_what_holds_it():
    rows = PAGE.split("## Differences")[1].split("\n## ")[0].splitlines()
    rows = [row for row in rows if row.startswith("| ")][1:]
    assert len(rows) == 19
    assert all("::test_" in row.rsplit("|", 2)[1] for row in rows)


@pytest.mark.parametrize("name", SIZES)
def test_memory_per_million_steps_is_as_stated(name):
    stated = re.search(rf"^\| {name} \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    size, layout = SIZES[name], get_environment("crafter").layout
    fields = {
        "state": ((layout.size,), np.uint8), "action": ((), np.int64), "reward": ((), np.float32),
        "is_first": ((), np.bool_), "is_last": ((), np.bool_), "is_terminal": ((), np.bool_),
        **latent_fields(size.deter, size.stoch),
    }  # fmt: skip
    pixels = fields | {"image": ((64, 64, 3), np.uint8)}
    found = [Replay.bytes_needed(f, 10**6) / 2**30 for f in (fields, pixels)]
    assert stated is not None and [float(v) for v in stated.groups()] == pytest.approx(found, abs=0.006)


def test_players_sample_their_actions_and_never_take_the_mode():
    controller = Controller(load_config(), None, None, None, 1, 3, np.random.default_rng(0))
    logits, state = np.log(np.array([0.5, 0.3, 0.2], np.float32)), np.zeros(1, np.uint8)
    drawn = [controller.act(0, state, 0.0, logits, torch.zeros(3)).action for _ in range(2000)]
    assert np.bincount(drawn, minlength=3) / 2000 == pytest.approx([0.5, 0.3, 0.2], abs=0.04)


def test_the_table_of_expected_losses_is_that_of_the_committed_run():
    rows = json.loads((ROOT / "benchmarks" / "results" / "losses.json").read_text())["rows"]
    lines = table(rows)
    assert rows[-1]["updates"] > 45_000 and len(lines) == 12
    assert "\n".join(lines) in PAGE
