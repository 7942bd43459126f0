"""The core knows no game: outside Crafter's own folders no string equals a word of its vocabulary or names it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from lore_datasets.environments.crafter import VOCAB, base_skills

ROOT = Path(__file__).parents[1]
OWN = (
    "lore/envs/crafter/", "lore/envs/gym.py", "datasets/lore_datasets/environments/", "lore/envs/minigrid/",
    "lore/envs/ale/",
)  # fmt: skip
"""The game's folders, its Gymnasium class, and those of the other games, whose words are their own."""
WORDS = {
    *VOCAB.actions, *VOCAB.targets, *VOCAB.items, *VOCAB.vitals, *VOCAB.achievements,
    *(skill.name for skill in base_skills()),
}  # fmt: skip
ALLOWED = {
    "nothing", "player",  # every view has them
    "do", "noop", "flee", "explore",  # words of the language of skills
    "path", "table",  # plain English
    "health",  # in saved skill runs of older checkpoints
    "crafter",  # the package that lore doctor looks for
    "crafter-12m", "crafter-paper", "crafter_score", "env/crafter_score",  # presets, a function, the original's tag
}  # fmt: skip


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every string of a module that is no docstring."""
    tree = ast.parse(path.read_text())
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.lineno, node.value


def test_no_word_of_crafter_stands_in_the_core():
    found = []
    for folder in ("lore", "pipeline", "flows", "datasets/lore_datasets"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name.startswith(OWN):
                continue
            for line, text in strings(path):
                if (text in WORDS or "crafter" in text.lower()) and text not in ALLOWED:
                    found.append(f"{name}:{line}: {text!r}")
    assert found == []
