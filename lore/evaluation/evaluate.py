"""Evaluating a run: its training episodes (the benchmark's protocol) and its final policy, with advice, without it, and
without skills too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lore.config import Config
from lore.evaluation.film import film
from lore.evaluation.recording import Recorder, read_recording, write_recordings
from lore.training.metrics import bootstrap_interval, crafter_score
from lore.training.policy import Policy, load_policy
from lore.training.records import read_jsonl
from lore.training.sinks import TensorBoard
from lore_datasets.advice import load_advice
from lore_datasets.atomic import write_json
from lore_datasets.places import check_writable

__all__ = ["evaluate", "modes", "play_episodes", "record_one", "summarise"]

FILM_FRAMES = 60
"""Frames of the film that an evaluation leaves in TensorBoard, at most."""


def summarise(returns: list[float], lengths: list[int], unlocked: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    """Mean return and per-achievement success (percent) with bootstrap 95 % intervals, and the Crafter score.

    Args:
        returns, lengths: one per episode. unlocked: bool[E, K]. names: K achievements.
    """
    if not returns:
        return {"episodes": 0}
    rates = 100.0 * unlocked.mean(0)
    return {
        "episodes": len(returns),
        "returns": [round(float(r), 4) for r in returns],
        "return_mean": float(np.mean(returns)),
        "return_interval": bootstrap_interval(np.array(returns)),
        "length_mean": float(np.mean(lengths)),
        "score": crafter_score(rates),
        "score_interval": bootstrap_interval(unlocked, statistic=lambda u, axis: crafter_score(100.0 * u.mean(axis))),
        "achievements": {
            name: {"rate": float(rate), "interval": [100.0 * v for v in bootstrap_interval(unlocked[:, k])]}
            for k, (name, rate) in enumerate(zip(names, rates, strict=True))
        },
    }


def play_episodes(
    policy: Policy, episodes: int, on_episode: Callable[[int], None] | None = None, recorded: list[bytes] | None = None
) -> dict[str, Any]:
    """Final-policy protocol: the sampled policy, fresh worlds, the same number of episodes from every environment.

    Each of E environments gives its first ``episodes`` / E episodes, one more where that leaves a rest: were it whoever
    ends first, short episodes would be counted more often than long ones. ``recorded`` takes each as a file.
    """
    returns, lengths, unlocked = [], [], []
    envs = policy.make_envs()
    quota = np.full(len(envs), episodes // len(envs)) + (np.arange(len(envs)) < episodes % len(envs))
    totals, steps = np.zeros(len(envs)), envs.reset()
    recorder = Recorder(policy) if recorded is not None else None
    while quota.any():
        actions, records = policy.act(steps)
        if recorder is not None:
            recorder.take(steps, actions, records)
        for env, step in enumerate(steps):
            totals[env] = step.reward if step.is_first else totals[env] + step.reward
            if step.is_last and quota[env]:
                quota[env] -= 1
                returns.append(float(totals[env]))
                lengths.append(int(step.info["length"]))
                unlocked.append(np.asarray(step.info["achievements"]) > 0)
                if recorder is not None and recorded is not None:
                    recorded.append(recorder.end(env, len(returns)))
                if on_episode is not None:
                    on_episode(len(returns))
        steps = envs.step(actions)
    return summarise(returns, lengths, np.array(unlocked), policy.environment.vocab.achievements)


def modes(config: Config) -> int:
    """How many different policies :func:`evaluate` plays for a run of this configuration: 1, 2 or 3."""
    return 1 + config.gate.enabled + config.options.enabled


def evaluate(
    run_dir: str | Path,
    episodes: int = 10,
    *,
    seed: int = 10_000,
    on_progress: Callable[[str, int], None] | None = None,
    record: int = 0,
) -> dict[str, Any]:
    """Write ``evaluation.json`` of a run and return it.

    ``training``: every training episode so far. ``final_policy.as_trained``: with the gate as configured.
    ``final_policy.agent_alone``: beta 0. ``final_policy.primitives_only``: beta 0 and the option slots masked. Where a
    path is off its mode is the one before it, and not played again. Advice is the version that the checkpoint recorded.
    Worlds are none of any training, whatever ``seed`` is. ``record``: keep this many episodes ``as_trained``, from the
    worst to the best, as files (:mod:`lore.evaluation.recording`); the figures stay the same.
    """
    folder = Path(run_dir)
    check_writable(folder / "evaluation.json")
    policy = load_policy(folder, seed)
    names = policy.environment.vocab.achievements
    rows = read_jsonl(folder / "episodes.jsonl")
    unlocked = np.array([[row["achievements"][n] > 0 for n in names] for row in rows], bool).reshape(
        len(rows), len(names)
    )
    out: dict[str, Any] = {
        "run": folder.name,
        "frames": policy.env_steps,
        "advice": policy.reference,
        "unused_advice": policy.unused_advice,
        "seed": seed,
        "training": summarise([r["return"] for r in rows], [r["length"] for r in rows], unlocked, names),
        "final_policy": {},
    }

    def progress(name: str) -> Callable[[int], None] | None:
        return None if on_progress is None else partial(on_progress, name)

    found = out["final_policy"]
    recorded: list[bytes] | None = [] if record else None
    found["as_trained"] = found["agent_alone"] = play_episodes(policy, episodes, progress("as trained"), recorded)
    if recorded:
        paths = write_recordings(folder, recorded, found["as_trained"]["returns"], record, _reasons(policy))
        _show_best(folder, paths[-1], policy.env_steps)
    if policy.gate is not None:
        alone = load_policy(folder, seed, is_advised=False)
        found["agent_alone"] = play_episodes(alone, episodes, progress("agent alone"))
    found["primitives_only"] = found["agent_alone"]
    if policy.slots is not None:
        bare = load_policy(folder, seed, is_advised=False, has_skills=False)
        found["primitives_only"] = play_episodes(bare, episodes, progress("primitives only"))
    write_json(folder / "evaluation.json", out)
    return out


def _reasons(policy: Policy) -> list[str] | None:
    """Texts of the rows of the policy's advice, which look-up leaves out; None without rows."""
    if policy.advice is None or not len(policy.advice.rows):
        return None
    return load_advice(policy.config.advice.dataset).rows.reason.tolist()


def record_one(run_dir: str | Path, seed: int = 10_000) -> Path:
    """Play one fresh episode with a run's agent as trained, and keep it among the run's recordings; its file."""
    policy, recorded = load_policy(run_dir, seed), []
    found = play_episodes(policy, 1, None, recorded)
    return write_recordings(Path(run_dir), recorded, found["returns"], 1, _reasons(policy))[0]


def _show_best(folder: Path, path: Path, step: int) -> None:
    """The best recorded episode as a film in the run's TensorBoard, where it has one."""
    if not any(folder.glob("events.out.tfevents.*")):
        return
    found = read_recording(path)
    frames = np.stack(list(film(found, every=-(-len(found["action"]) // FILM_FRAMES))))
    board = TensorBoard(folder, None)
    board.animation("report/episode", frames, step)
    board.close()
