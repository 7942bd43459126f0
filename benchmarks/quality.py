"""How good each adviser's answers are on the same mixed Crafter states.

``python -m benchmarks.quality --backends rules,local,blind,random,degraded --states 100``: states of random, competent
and half-and-half play in equal parts; each adviser is asked once per state which goal now, through the pipeline's own
prompts, parser and checks. The rule book is the yardstick: it plays Crafter well (rules_play.py), but is no truth, so
agreement with it is a floor for good advice, not a grade. Prints a table, writes results/quality.json.

``--journal FILE`` keeps answers and takes those that are there; ``--dataset NAME`` draws the states from a dataset of
states instead of fresh play.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import write
from lore.envs.crafter.adapter import CrafterEnv
from lore.options.play import GoalPlayer
from lore_datasets.environments import get_environment
from lore_datasets.errors import AnswerError
from lore_datasets.exchange.shipped import ShippedStore
from lore_datasets.language.geometry import StateView
from lore_datasets.types import SymbolicState
from pipeline.llm import get_backend
from pipeline.llm.backends.rules import rule_book
from pipeline.llm.base import LLM, Response
from pipeline.llm.journal.journal import Journal
from pipeline.questions.check import check_prior
from pipeline.questions.feasible import GoalCheck
from pipeline.questions.parse import parse
from pipeline.questions.prompts import Renderer
from pipeline.rounds.collect import HalfAndHalf, RandomPolicy, collect

__all__ = ["judge", "main", "mixed_states", "share"]

ENVIRONMENT = get_environment("crafter")


def mixed_states(count: int, seed: int, dataset: str = "") -> tuple[np.ndarray, np.ndarray]:
    """(uint8[N, S] packed states, uint8[N] source): ``count`` states in equal parts of the three players."""
    if dataset:
        arrays = ShippedStore().open(dataset).arrays
        rows = {path.rpartition("/")[2]: array for path, array in arrays.items()}
        state, source = rows["state"], rows["source"]
    else:
        env = ENVIRONMENT

        def rules() -> GoalPlayer:
            return GoalPlayer(rule_book("crafter"), env.skills, env.vocab)

        players = {"random": RandomPolicy(), "rules": rules(), "half_and_half": HalfAndHalf(rules())}
        rng = np.random.default_rng(seed)
        found = collect(lambda: CrafterEnv(seed, pixels=False), players, 30 * count, rng)
        state, source = found.state, found.source
    rng, kinds = np.random.default_rng(seed), np.unique(source)
    parts = [rng.choice(np.flatnonzero(source == k), count // 3 + (i < count % 3), False) for i, k in enumerate(kinds)]
    index = np.concatenate(parts)
    return state[index], source[index]


def share(hits: list[bool]) -> dict[str, float]:
    """Per cent of ``hits`` with the 95 % Wilson interval."""
    n, p, z = len(hits), float(np.mean(hits)), 1.96
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return {"percent": 100 * p, "low": 100 * max(low, 0.0), "high": 100 * min(high, 1.0), "n": n}


def judge(llm: LLM, states: np.ndarray, source: np.ndarray, journal: Journal, seed: int = 0) -> dict[str, Any]:
    """Ask ``llm`` about every state once; shares of usable answers, feasible choices and agreement, seconds, dollars.

    A state without a usable answer counts as disagreement. ``seconds`` are those that the answer took when it was
    given (the journal keeps them); an adviser that states none is timed here.
    """
    vocab, renderer, goals_of = (
        ENVIRONMENT.vocab,
        Renderer(ENVIRONMENT, seed=seed),
        GoalCheck(ENVIRONMENT.skills, ENVIRONMENT.vocab),
    )
    views = [StateView(state.tobytes(), vocab) for state in states]
    goals = [goals_of(view) for view in views]
    form = "letter" if llm.capabilities.letters else "json"
    batch = [SymbolicState.unpack(state, ENVIRONMENT.layout) for state in states]
    prompts = [renderer.prior(state, names, answer=form) for state, names in zip(batch, goals, strict=True)]
    began = time.perf_counter()
    answers: list[Response] = journal.ask(llm, prompts)
    each = (time.perf_counter() - began) / len(prompts)
    names = {*vocab.actions, *(skill.name for skill in ENVIRONMENT.skills)}
    usable, first, third, named, feasible = [], [], [], 0, 0
    for view, options, prompt, answer in zip(views, goals, prompts, answers, strict=True):
        try:
            advice = parse(answer, prompt, names)
            named += len(advice.choices)
            checked, rejected = check_prior(advice, options, view, "")
            feasible += len(advice.choices) - len(rejected)
        except AnswerError:
            checked = None
        ranked = [name for name, p in checked.choices if p > 0] if checked else []
        best = next(name for name, _ in rule_book("crafter")(view) if name in options)
        usable.append(bool(ranked))
        first.append(ranked[:1] == [best])
        third.append(best in ranked[:3])
    timed = np.array([answer.latency_s for answer in answers])
    chance = [1 / len(options) for options in goals]
    return {
        "adviser": llm.name,
        "asked_as": form,
        "usable": share(usable),
        "feasible_percent": 100 * feasible / max(named, 1),
        "top1": share(first),
        "top3": share(third),
        "top1_by_source": {str(k): 100 * float(np.mean(np.array(first)[source == k])) for k in np.unique(source)},
        "uniform_choice": {"top1": 100 * np.mean(chance), "top3": 100 * np.mean(np.minimum(3 * np.array(chance), 1))},
        "seconds": {"median": float(np.median(timed)), "mean": float(timed.mean())} if timed.any() else {"mean": each},
        "usd_per_state": float(np.mean([answer.price_usd for answer in answers])),
        "models": sorted({answer.model for answer in answers if answer.model}),
    }


def _line(name: str, r: dict[str, Any]) -> str:
    def shown(part: dict[str, float]) -> str:
        return f"{part['percent']:.0f} ({part['low']:.0f} to {part['high']:.0f})"

    seconds = r["seconds"].get("median", r["seconds"]["mean"])
    return (f"| {name} | {r['usable']['percent']:.0f} | {r['feasible_percent']:.0f} | {shown(r['top1'])} | "
            f"{shown(r['top3'])} | {seconds:.2g} | {r['usd_per_state']:.2g} |")  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backends", default="rules,blind,random,degraded")
    parser.add_argument("--states", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dataset", default="", help="draw the states from this dataset instead of fresh play")
    parser.add_argument("--journal", type=Path, help="file of answers; those that are there are not asked again")
    parser.add_argument("--model", default="", help="model of the backends local, gemini and openai")
    parser.add_argument("--base-url", default="", help="server of the backend openai")
    args = parser.parse_args(argv)
    states, source = mixed_states(args.states, args.seed, args.dataset)
    results = {}
    print("| adviser | usable % | feasible % | top-1 % (95 %) | top-3 % (95 %) | s per state | USD per state |")
    print("|---|---|---|---|---|---|---|")
    for name in args.backends.split(","):
        options = {"model": args.model} if args.model and name in ("local", "gemini", "openai") else {}
        options |= {"dropped": 0.25, "wrong": 0.25} if name == "degraded" else {}
        options |= {"base_url": args.base_url} if args.base_url and name == "openai" else {}
        with Journal(args.journal or ":memory:") as journal:
            results[name] = judge(get_backend(name, **options), states, source, journal, args.seed)
        print(_line(name, results[name]), flush=True)
    about = {"states": args.states, "seed": args.seed, "dataset": args.dataset or "fresh play"}
    print(write("quality", {**about, "advisers": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
