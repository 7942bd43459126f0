"""How far stored advice reaches: agreement with the rule book on states that were not asked about.

``python -m benchmarks.coverage --rows 1000 3000 10000``: rows come from the offline phase itself (play of three kinds,
the rule book as adviser, one version per size), figures from fresh worlds of each kind: random play, the rule book's
own (competent) and half of each (mixed). Three tables: primitive actions by a model distilled from actions; the same
actions by way of the goals (each skill gives its mass to its next action); goals by table, model and look-up.
Percentages; the teacher is asked anew in every state. Writes benchmarks/results/coverage.json and prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.record import RESULTS, write
from lore.advice.distil import fit, train_arrays
from lore.advice.figures import calibration_error, reliability
from lore.advice.key_table import KeyTable
from lore.advice.lookup import AdviceSource
from lore.advice.model import AdviceModel
from lore.advice.types import SOURCES
from lore.envs.crafter.adapter import CrafterEnv
from lore.options.interpreter import propose
from lore.options.play import GoalPlayer
from lore_datasets.advice import AdviceData, load_advice
from lore_datasets.environments import get_environment
from lore_datasets.keys import goal_keys
from lore_datasets.language.geometry import StateView
from lore_datasets.store.store import Store
from lore_datasets.types import SymbolicState
from pipeline.config import AdviseConfig, PipelineConfig
from pipeline.llm.backends.rules import RulesAdviser, rule_book
from pipeline.rounds.advise import advise
from pipeline.rounds.collect import HalfAndHalf, Policy, RandomPolicy, collect

__all__ = ["main", "measure"]

ENV = get_environment("crafter")
ACTIONS = len(ENV.vocab.actions)
KINDS = ("random", "competent", "mixed")
NOTE = {
    "actions": {1000: ((40, 71), (34, 66), (31, 64)), 3000: ((69, 92), (52, 79), (49, 79)),
                10000: ((76, 96), (60, 84), (58, 87))},
    "goals": {1000: ((69, 46), (39, 32), (63, 32)), 3000: ((75, 67), (41, 47), (65, 56)),
              10000: ((78, 79), (48, 57), (69, 67))},
}  # fmt: skip
"""What was measured before anything was built, with another rule book as teacher: top-1 / top-3 of actions, agreement
of table / network on goals, for the three kinds of play."""


def players() -> dict[str, Callable[[], Policy]]:
    """Name of a kind of play -> its player."""

    def rules() -> GoalPlayer:
        return GoalPlayer(rule_book(ENV), ENV.skills, ENV.vocab)

    return {"random": RandomPolicy, "competent": rules, "mixed": lambda: HalfAndHalf(rules())}


def play(kinds: tuple[str, ...], states: int, seed: int, stride: int) -> np.ndarray:
    """Packed states uint8[states, S] of whole episodes in fresh worlds, one in ``stride`` kept."""
    chosen = {kind: players()[kind]() for kind in kinds}
    found = collect(
        lambda: CrafterEnv(seed, pixels=False), chosen, states, np.random.default_rng(seed), stride=stride
    )  # fmt: skip
    return found.state


def teach(states: np.ndarray, store: Store, name: str) -> AdviceData:
    """The rule book's answers as a version of dataset ``name``, through the whole offline phase."""
    config = PipelineConfig(advise=AdviseConfig(plan_share=0.0, skill_questions=0))
    ref = advise(states, ENV, RulesAdviser(ENV), store, name, config)
    return load_advice(str(ref), root=str(store.root))


def proposals(states: np.ndarray) -> np.ndarray:
    """int64[N, K]: next action of every skill, -1 where it cannot start."""
    return np.array([propose(ENV.skills, StateView(s.tobytes(), ENV.vocab)) for s in states], np.int64)


def by_way_of_goals(p: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """float64[N, A]: probabilities of goals [N, K] handed to the next action of each feasible skill."""
    out = np.zeros((len(p), ACTIONS))
    for k in range(steps.shape[1]):
        able = steps[:, k] >= 0
        np.add.at(out, (np.flatnonzero(able), steps[able, k]), p[able, k])
    return out


def top(scores: np.ndarray, truth: np.ndarray) -> list[float]:
    """[top-1, top-3] agreement in percent."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :3]
    return [100 * float((order[:, 0] == truth).mean()), 100 * float((order == truth[:, None]).any(1).mean())]


def _truth(data: AdviceData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(best goal int64[N], its next action int64[N] or -1, next action of every skill) of a taught version."""
    goal = data.rows.logits[:, ACTIONS:].argmax(1)
    steps = proposals(data.rows.state)
    return goal, steps[np.arange(len(goal)), goal], steps


def measure(rows: list[int], states: int, seed: int, epochs: int, stride: int = 5) -> dict[str, Any]:
    """Figures for each number of rows; ``states`` fresh test states of each kind, of other worlds."""
    out: dict[str, Any] = {"rows": {}, "test_states": states, "seed": seed, "epochs": epochs, "stride": stride}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        tests = {k: teach(play((k,), states, seed + 900 + i, 10), store, f"test-{k}") for i, k in enumerate(KINDS)}
        truths = {k: _truth(test) for k, test in tests.items()}
        pool = play(KINDS, max(rows), seed, stride)
        pool = pool[np.random.default_rng(seed).permutation(len(pool))]
        for n in rows:
            data = teach(pool[:n], store, f"rows-{n}")
            out["rows"][str(n)] = _figures(data, tests, truths, epochs, seed)
            print(f"{n} rows: {out['rows'][str(n)]['cpu_s']:.0f} s of CPU to distil", file=sys.stderr, flush=True)
    return out


def _figures(
    data: AdviceData, tests: dict[str, AdviceData], truths: dict[str, Any], epochs: int, seed: int
) -> dict[str, Any]:
    began = time.process_time()
    arrays, report = train_arrays(data, epochs=epochs, seed=seed)
    seconds = time.process_time() - began
    goals, actions = AdviceModel.from_arrays(arrays, ENV), _action_model(data, epochs, seed)
    source = AdviceSource(replace(data, model=arrays))
    rows = data.rows
    table = KeyTable(rows.key_goal, rows.logits, rows.mask.astype(bool), rows.confidence)
    out: dict[str, Any] = {"cpu_s": seconds, "held_out": {k: v for k, v in report.items() if k != "by_source"}}
    for kind, test in tests.items():
        goal, action, steps = truths[kind]
        states = test.rows.state
        p = goals.probabilities(states)[:, ACTIONS:]
        at = table.find(goal_keys(SymbolicState.unpack(states, ENV.layout), ENV))
        hit, said = at >= 0, table.logits[at, ACTIONS:].argmax(1)
        found = source.lookup_batch(states)
        looked_up = np.where(found.known, found.logits, -np.inf)[:, ACTIONS:]
        clear = action >= 0
        out[kind] = {
            "states": len(goal),
            "actions": top(actions.probabilities(states)[clear, :ACTIONS], action[clear]),
            "actions_by_goals": top(by_way_of_goals(p, steps)[clear], action[clear]),
            "goals_table": 100 * float((hit & (said == goal)).mean()),
            "goals_table_hits": 100 * float(hit.mean()),
            "goals_table_where_hit": 100 * float((said == goal)[hit].mean()) if hit.any() else None,
            "goals_model": top(p, goal),
            "goals_lookup": top(looked_up, goal),
            "sources": {name: float((found.source == i).mean()) for i, name in enumerate(SOURCES)},
            "calibration_error": calibration_error(reliability(p.max(1), p.argmax(1) == goal)),
        }
    return out


def _action_model(data: AdviceData, epochs: int, seed: int) -> AdviceModel:
    """A model distilled from the teacher's primitive actions on the same rows."""
    _, action, _ = _truth(data)
    clear = np.flatnonzero(action >= 0)
    width = ACTIONS + len(ENV.skills)
    logits, known = np.zeros((len(clear), width), np.float32), np.zeros((len(clear), width), bool)
    known[:, :ACTIONS] = True
    logits[:, :ACTIONS], logits[np.arange(len(clear)), action[clear]] = -1.0, 4.0
    ones = np.ones(len(clear), np.float32)
    members = fit(data.rows.state[clear], logits, ones, ENV, known=known, epochs=epochs, seed=seed)
    return AdviceModel(members, 1.0, known[0].astype(np.float32))


def markdown(result: dict[str, Any]) -> str:
    """The tables of docs/results.md; in brackets what was to be beaten, where it is known."""

    def pair(values: list[float], old: tuple[float, float] | None) -> str:
        text = f"{values[0]:.0f} / {values[1]:.0f}"
        return f"{text} ({old[0]} / {old[1]})" if old else text

    lines = ["| rows | asked | random | competent | mixed |", "|---|---|---|---|---|"]
    for n, found in result["rows"].items():
        none: tuple[Any, ...] = (None, None, None)
        old: dict[str, tuple[Any, ...]] = {name: NOTE[name].get(int(n), none) for name in NOTE}
        for name, title, note in (
            ("actions", "action, model of actions", old["actions"]),
            ("actions_by_goals", "action, by way of goals", old["actions"]),
            ("goals_model", "goal, model", none),
            ("goals_lookup", "goal, look-up", none),
        ):
            cells = [pair(found[kind][name], note[i]) for i, kind in enumerate(KINDS)]
            lines.append(f"| {int(n):,} | {title}, top-1 / top-3 | {' | '.join(cells)} |")
        cells = [
            f"{found[k]['goals_table']:.0f} / {found[k]['goals_model'][0]:.0f} / {found[k]['goals_lookup'][0]:.0f}"
            + (f" ({old['goals'][i][0]} / {old['goals'][i][1]})" if old["goals"][i] else "")
            for i, k in enumerate(KINDS)
        ]
        lines.append(f"| {int(n):,} | goal: table / model / look-up | {' | '.join(cells)} |")
    return "\n".join(lines)


def _join_earlier(result: dict[str, Any]) -> None:
    """Keep the sizes of an earlier run with the same settings, so that sizes can be measured one at a time."""
    path = RESULTS / "coverage.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    if all(before.get(key) == value for key, value in result.items() if key != "rows"):
        sizes = before["rows"] | result["rows"]
        result["rows"] = {n: sizes[n] for n in sorted(sizes, key=int)}


def main(argv: list[str] | None = None) -> int:
    """The command."""
    import torch

    parser = argparse.ArgumentParser(description="How far stored advice reaches.")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 3000, 10000])
    parser.add_argument("--states", type=int, default=2000, help="test states of each kind")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    result = measure(args.rows, args.states, args.seed, args.epochs)
    _join_earlier(result)
    print(markdown(result))
    print(f"\n{write('coverage', result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
