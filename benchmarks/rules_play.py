"""How well the rule book plays Crafter alone, through its own advice.

``python -m benchmarks.rules_play --episodes 40 --seed 0``: every episode is a fresh world; the player sees the
symbolic view only, ranks the skills, holds the best for 12 steps or until it ends, and keeps no map. Prints mean reward
with its standard error, the Crafter score, per-achievement rates, and all of it as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np

from benchmarks.record import RESULTS, write
from lore.envs.crafter.adapter import CrafterEnv
from lore.options.play import GoalPlayer
from lore_datasets.language.geometry import StateView
from pipeline.llm.backends.rules import rule_book

__all__ = ["main", "measure", "play_episode"]


def play_episode(env: CrafterEnv, player: GoalPlayer, rng: np.random.Generator) -> tuple[float, int, np.ndarray]:
    """(reward, length, achievement counts int16[K]) of the environment's next episode."""
    step, total = env.reset(), 0.0
    player.reset()
    while not step.is_last:
        step = env.step(player(StateView(step.state, env.spec.vocab), rng))
        total += step.reward
    return total, step.info["length"], step.info["achievements"]


def measure(episodes: int, seed: int, length: int = 10_000, hold: int = 12) -> dict[str, Any]:
    """Play ``episodes`` fresh episodes of one seed; a JSON-able summary."""
    env = CrafterEnv(seed, length=length, pixels=False)
    rng = np.random.default_rng(seed)
    player = GoalPlayer(rule_book("crafter"), env.spec.skills, env.spec.vocab, hold=hold)
    began = time.perf_counter()
    rewards, lengths, counts = zip(*(play_episode(env, player, rng) for _ in range(episodes)), strict=True)
    rates = 100 * (np.array(counts) > 0).mean(0)
    return {
        "player": "rules (a rule book, not a language model)",
        "episodes": episodes,
        "seed": seed,
        "hold": hold,
        "reward_mean": float(np.mean(rewards)),
        "reward_stderr": float(np.std(rewards, ddof=1) / np.sqrt(episodes)) if episodes > 1 else None,
        "length_mean": float(np.mean(lengths)),
        "score": float(np.exp(np.log1p(rates).mean()) - 1),
        "decisions_per_episode": player.decisions / episodes,
        "steps_per_second": sum(lengths) / (time.perf_counter() - began),
        "success_percent": dict(zip(env.spec.vocab.achievements, rates.round(1).tolist(), strict=True)),
        "outcomes": {f"{name}:{how}": n for (name, how), n in sorted(player.outcomes.items())},
    }


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--length", type=int, default=10_000)
    parser.add_argument("--hold", type=int, default=12)
    parser.add_argument(
        "--write", action="store_true", help="put the run in results/rules_play.json, beside other seeds"
    )
    args = parser.parse_args(argv)
    result = measure(args.episodes, args.seed, args.length, args.hold)
    for name, rate in result["success_percent"].items():
        print(f"{name:22s}{rate:6.1f} %")
    spread = result["reward_stderr"]
    print(
        f"reward {result['reward_mean']:.2f}"
        + (f" +- {spread:.2f}" if spread is not None else "")
        + f" over {args.episodes} episodes"
    )
    if args.write:
        path = RESULTS / "rules_play.json"
        runs = json.loads(path.read_text())["runs"] if path.exists() else []
        runs = [run for run in runs if run["seed"] != args.seed] + [result]
        write("rules_play", {"runs": sorted(runs, key=lambda run: run["seed"])})
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
