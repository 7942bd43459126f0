"""One played episode as a file: what was seen, what the agent thought of it, and who was in charge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lore.dreamer.dists import policy_entropy, policy_log_probs
from lore.training.policy import Policy, load_policy
from lore_datasets.atomic import replacing

__all__ = ["play_recorded", "read_recording", "record_episode"]


def play_recorded(policy: Policy) -> dict[str, np.ndarray]:
    """Play one episode in the first environment of ``policy``; arrays with T = its length + 1 frames.

    ``state`` uint8 [T, S], ``image`` uint8 [T, H, W, 3] (with pixels), ``reward`` f32, ``action`` i16 (-1 at the end),
    ``value`` f32, ``entropy`` f32 (of the primitives, 1 = uniform), ``beta`` f32 (0 where no decision was mixed),
    ``charge`` (policy, advice, option or plan), ``skill`` i16 (-1 = none), ``row`` i32 of the advice table (-1 = none),
    ``spoke`` (what the look-up says who speaks here: a row, a rule of the program with its reason, ...; empty without
    advice) and the names: ``actions``, ``skills``, ``achievements``, ``unlocked`` i16 counts, ``advice``.
    """
    rows: dict[str, list[Any]] = {}
    envs, controller = policy.make_envs(), policy.controller
    steps = envs.reset()
    while True:
        step = steps[0]
        before = controller.accounts.totals.get("beta", 0.0)
        actions, records = policy.act(steps)
        value, entropy = _thoughts(policy)
        now = {
            "state": step.state, "reward": step.reward, "action": -1 if step.is_last else actions[0], "value": value,
            "entropy": entropy, "beta": controller.accounts.totals.get("beta", 0.0) - before,
            "charge": controller.charges[0].kind,
            "skill": records[0].get("skill", -1), "row": records[0].get("row", -1),
        }  # fmt: skip
        if step.image is not None:
            now["image"] = step.image
        for name, entry in now.items():
            rows.setdefault(name, []).append(entry)
        if step.is_last:
            break
        steps = envs.step(actions)
    types = {
        "state": np.uint8, "image": np.uint8, "reward": np.float32, "action": np.int16, "value": np.float32,
        "entropy": np.float32, "beta": np.float32, "charge": np.str_, "skill": np.int16, "row": np.int32,
    }  # fmt: skip
    vocab, source = policy.environment.vocab, policy.source
    spoke = source.explain(np.array(rows["state"], np.uint8)) if source is not None else [""] * len(rows["state"])
    return {name: np.array(values, types[name]) for name, values in rows.items()} | {
        "actions": np.array(vocab.actions), "achievements": np.array(vocab.achievements),
        "skills": np.array([s.name for s in policy.skills], np.str_),
        "unlocked": np.asarray(step.info["achievements"], np.int16),
        "advice": np.array(policy.reference), "spoke": np.array(spoke, np.str_),
    }  # fmt: skip


@torch.no_grad()
def _thoughts(policy: Policy) -> tuple[float, float]:
    """(critic's value, policy entropy / ln A) of the first environment's present belief."""
    agent = policy.agent
    features = policy.player.latent.features()[:1]
    primitive = policy_log_probs(agent.actor_critic.actor(features)[:, : agent.num_actions], None, 0.0)
    entropy = policy_entropy(primitive) / np.log(agent.num_actions)
    return float(agent.actor_critic.value(features)), float(entropy)


def record_episode(folder: str | Path, seed: int = 10_000, name: str = "episode.npz") -> Path:
    """Play one episode of a run's final policy and write it beside its checkpoint (npz without pickle)."""
    folder = Path(folder)
    arrays = play_recorded(load_policy(folder, seed))
    path = folder / name
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return path


def read_recording(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a recorded episode; a file that would need pickle is refused by numpy."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
