"""Played episodes as files: what was seen, what the agent thought of it, who decided and why, what it expected next."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from lore.dreamer.dists import policy_entropy, policy_log_probs
from lore.dreamer.nets import ImageDecoder
from lore.dreamer.types import Latent
from lore.envs.base import Step
from lore.gate.gate import advice_distribution
from lore.options.charge import POLICY
from lore.training.policy import Policy
from lore_datasets.atomic import write_bytes
from lore_datasets.errors import CorruptArtifact

__all__ = ["AHEAD", "FOLDER", "SCHEMA", "Recorder", "chosen", "read_recording", "recordings", "write_recordings"]

SCHEMA = 2
"""Version of the arrays; 1, of before, had no decisions and no predictions."""
FOLDER = "recordings"
"""Folder in a run where recorded episodes lie."""
AHEAD = (1, 5)
"""Steps that the world model looks ahead from each frame, under the actions that were then played."""

_TYPES = {
    "state": np.uint8, "image": np.uint8, "reward": np.float32, "action": np.int16, "value": np.float32,
    "entropy": np.float32, "beta": np.float32, "kl": np.float32, "uncertainty": np.float32, "charge": np.str_,
    "advised": np.bool_, "skill": np.int16, "row": np.int32, "since": np.int32, "entry": np.int16,
    "followed": np.bool_, "logits": np.float32, "advice_logits": np.float32, "allowed": np.bool_, "mixed": np.float32,
}  # fmt: skip


class Recorder:
    """Looks on while a policy plays and changes nothing: neither its draws nor its counts.

    An episode becomes arrays with T = its length + 1 frames and N = A + M entries of the policy: ``state`` uint8
    [T, S], ``image`` uint8 [T, H, W, 3] (with pixels), ``reward``, ``value``, ``entropy`` (of the primitives,
    1 = uniform) f32, ``action`` i16 (-1 at the end); of decisions ``entry`` i16 (what was drawn, -1 where somebody in
    charge went on), ``beta``, ``kl`` (nats), ``uncertainty`` f32, ``logits``, ``advice_logits``, ``mixed``
    (probabilities of logits + beta * advice_logits) f32 [T, N], ``allowed`` bool [T, N], ``followed`` (the draw is the
    advice's); of who acts ``charge`` (policy, advice, option or plan), ``advised`` (the advice took the step),
    ``since`` i32 (the step of the decision behind it), ``skill`` i16 (-1 = none); of the advice ``row`` i32 (-1 =
    none), ``spoke`` (a row or a rule of the program, with its reason; empty without advice), ``goals`` f16 [T, A+K]
    (probabilities of what can be done here), ``confidence`` f32; ``ahead_1``, ``ahead_5``: the frame (or the cells of
    the view, uint8 [T, cells]) that the world model expected 1 and 5 steps before. And names: ``actions``, ``skills``,
    ``entries`` (actions and the skill in each slot), ``achievements``, ``advice``, ``environment``.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        envs = policy.config.env.num_envs
        self.frames: list[list[dict[str, Any]]] = [[] for _ in range(envs)]
        self._dreams = _Dreams(policy, envs)

    def take(self, steps: Sequence[Step], actions: Sequence[int], records: Sequence[dict[str, Any]]) -> None:
        """One step of every environment, just acted on."""
        values, entropies, logits = self._thoughts()
        expected = self._dreams.frames()
        for env, step in enumerate(steps):
            frames, charge = self.frames[env], self.policy.controller.charges[env]
            decided = None if step.is_last else self.policy.controller.decisions[env]
            record, width = records[env], logits.shape[1]
            in_charge = charge.kind != POLICY or charge.advised
            frame = {
                "state": step.state, "reward": step.reward, "action": -1 if step.is_last else actions[env],
                "value": values[env], "entropy": entropies[env], "charge": charge.kind,
                "advised": bool(record.get("advised", False)), "skill": record.get("skill", -1),
                "row": record.get("row", -1), "since": len(frames) - max(charge.steps - 1, 0) * in_charge,
                "logits": logits[env] if decided is None else decided.logits,
                "advice_logits": np.zeros(width) if decided is None else decided.advice,
                "allowed": np.ones(width, bool) if decided is None else decided.allowed,
                "mixed": np.zeros(width) if decided is None else decided.mixed,
                "entry": -1 if decided is None else decided.entry,
                "beta": 0.0 if decided is None else decided.beta, "kl": 0.0 if decided is None else decided.divergence,
                "uncertainty": 0.0 if decided is None else decided.uncertainty,
                "followed": decided is not None and decided.followed,
                "proposals": record.get("proposals", np.zeros(0, np.int8)),
            }  # fmt: skip
            if step.image is not None:
                frame["image"] = step.image
            frame |= {
                name: found[env] * (len(frames) >= k) for (name, found), k in zip(expected.items(), AHEAD, strict=True)
            }
            frames.append(frame)
        self._dreams.step(actions)

    def end(self, env: int, number: int) -> bytes:
        """The episode of ``env`` that ended with the last step, number ``number``, as a file (npz without pickle)."""
        arrays, buffer = self._arrays(self.frames[env]), io.BytesIO()
        np.savez_compressed(buffer, **arrays, number=np.array(number))  # type: ignore[arg-type]
        self.forget(env)
        return buffer.getvalue()

    def forget(self, env: int) -> None:
        """Another episode of ``env`` begins."""
        self.frames[env] = []

    def _arrays(self, frames: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        policy, vocab = self.policy, self.policy.environment.vocab
        types = {name: _TYPES.get(name, np.uint8) for name in frames[0] if name != "proposals"}
        out = {name: np.array([frame[name] for frame in frames], kind) for name, kind in types.items()}
        slots = policy.slots.skill.tolist() if policy.slots is not None else []
        names = np.array([skill.name for skill in policy.skills], np.str_)
        entries = [*vocab.actions, *(str(names[k]) if k >= 0 else "" for k in slots)]
        return out | self._advice(out, np.array([frame["proposals"] for frame in frames])) | {
            "schema": np.array(SCHEMA), "actions": np.array(vocab.actions), "skills": names,
            "entries": np.array(entries), "achievements": np.array(vocab.achievements),
            "unlocked": out["state"][-1, policy.environment.layout.offsets()["unlocked"]].astype(np.int16),
            "advice": np.array(policy.reference), "environment": np.array(policy.environment.name),
            "observation": np.array(policy.config.env.observation), "trained": np.array(policy.env_steps),
        }  # fmt: skip

    def _advice(self, found: dict[str, np.ndarray], proposals: np.ndarray) -> dict[str, np.ndarray]:
        """``spoke``, ``goals`` and ``confidence`` of an episode's states."""
        source, states = self.policy.controller.source, found["state"]
        silent = {"spoke": np.full(len(states), "", np.str_), "goals": np.zeros((len(states), 0), np.float16),
                  "confidence": np.zeros(len(states), np.float32)}  # fmt: skip
        if source is None:
            return silent
        try:
            said, told = source.lookup_batch(states), source.explain(states)
        except Exception:  # while playing it was no advice, and counted (lore.options.guard)
            return silent
        goals = [
            advice_distribution(logits, known, each, np.zeros(0, np.int64), source.num_actions)[1]
            for logits, known, each in zip(said.logits, said.known, proposals, strict=True)
        ]
        return {
            "spoke": np.array(told, np.str_), "goals": np.array(goals, np.float16), "confidence": said.confidence
        }  # fmt: skip

    @torch.no_grad()
    def _thoughts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(critic's value [E], entropy / ln A of the primitives [E], the policy's logits [E, N]) of the beliefs."""
        agent, features = self.policy.agent, self.policy.player.latent.features()
        critic, logits = agent.actor_critic, agent.actor_critic.actor(features)
        primitive = policy_log_probs(logits[:, : agent.num_actions], None, 0.0)
        entropy = policy_entropy(primitive) / np.log(agent.num_actions)
        logits = policy_log_probs(logits, None, critic.unimix) if critic.unimix else logits.float()
        return _host(critic.value(features)).reshape(-1), _host(entropy), _host(logits)


def _host(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


class _Dreams:
    """What the world model expects :data:`AHEAD` steps ahead: every belief is imagined on under the actions played."""

    def __init__(self, policy: Policy, envs: int) -> None:
        self.model, self.envs, self.player = policy.agent.world_model, envs, policy.player
        self.generator = Generator(policy.device).manual_seed(0)  # of its own: the policy's draws stay as they are
        self.ages: list[Latent] = []  # beliefs of 1, 2, ... steps ago, imagined up to now

    @torch.no_grad()
    def step(self, actions: Sequence[int]) -> None:
        """The actions were played: every dream takes its next step."""
        now = [Latent(*(part.float() for part in self.player.latent)), *self.ages][: max(AHEAD)]
        one = torch.tensor(actions, dtype=torch.int64, device=now[0].deter.device)
        together = Latent(torch.cat([d.deter for d in now]), torch.cat([d.stoch for d in now]))
        after = self.model.rssm.imagine_step(together, one.repeat(len(now)), together.numbers(self.generator))
        self.ages = [
            Latent(after.deter[i : i + self.envs], after.stoch[i : i + self.envs])
            for i in range(0, len(now) * self.envs, self.envs)
        ]

    @torch.no_grad()
    def frames(self) -> dict[str, np.ndarray]:
        """``ahead_K`` -> frames uint8 [E, H, W, 3] or cells uint8 [E, cells] foretold K steps ago; at the first K
        steps of an episode those of another."""
        known = [self.ages[min(k, len(self.ages)) - 1] if self.ages else self.player.latent for k in AHEAD]
        latent = Latent(torch.cat([k.deter.float() for k in known]), torch.cat([k.stoch.float() for k in known]))
        decoder = self.model.decoder
        if isinstance(decoder, ImageDecoder):
            drawn = decoder(latent.deter, latent.stoch.flatten(-2))
            found = (drawn * 255.0).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        else:
            found = decoder.reconstruct(latent.features()).to(torch.uint8).cpu().numpy()
        return {f"ahead_{k}": part for k, part in zip(AHEAD, np.split(found, len(AHEAD)), strict=True)}


def chosen(returns: Sequence[float], count: int) -> list[tuple[int, str]]:
    """(index, place) of ``count`` episodes spread evenly over their order by return, ``worst`` first, ``best`` last.

    One alone is the median; the first of equals comes first.
    """
    order = np.argsort(np.asarray(returns, np.float64), kind="stable")
    total = len(order)
    ranks = (
        [(total - 1) // 2] if count == 1 else np.floor(np.linspace(0, total - 1, min(count, total)) + 1e-9).astype(int)
    )
    names = {(total - 1) // 2: "median", 0: "worst", total - 1: "best"} if total > 1 else {0: "median"}
    return [(int(order[rank]), names.get(rank, f"rank {rank + 1} of {total}")) for rank in ranks]


def write_recordings(
    folder: Path, episodes: Sequence[bytes], returns: Sequence[float], count: int, reasons: Sequence[str] | None = None
) -> list[Path]:
    """Keep ``count`` of the recorded ``episodes`` (of these ``returns``) in ``folder/recordings``, in place of those
    that lie there; their paths, by return. ``reasons``: texts of the advice's rows, added to what spoke."""
    place = folder / FOLDER
    picks = chosen(returns, count)
    for old in place.glob("episode-*.npz"):
        old.unlink()
    paths = []
    for index, name in picks:
        arrays = _opened(io.BytesIO(episodes[index]), "an episode")
        if reasons is not None:
            arrays["spoke"] = np.array([
                f"{told}: {reasons[row]}" if row >= 0 and told == f"row {row}" and reasons[row] else told
                for told, row in zip(arrays["spoke"].tolist(), arrays["row"].tolist(), strict=True)
            ], np.str_)  # fmt: skip
        arrays |= {"return": np.array(float(returns[index])), "place": np.array(name),
                   "episodes": np.array(len(returns))}  # fmt: skip
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        paths.append(place / f"episode-{index:04d}.npz")
        write_bytes(paths[-1], buffer.getvalue())
    return paths


def recordings(folder: str | Path) -> list[Path]:
    """Files of the recorded episodes of a run, and one of an older LoRe; [] where there is none."""
    found = sorted((Path(folder) / FOLDER).glob("episode-*.npz"))
    return found or sorted(Path(folder).glob("episode*.npz"))


def read_recording(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a recorded episode; CorruptArtifact where the file is none, or would need pickle."""
    return _opened(path, str(path))


def _opened(file: Any, name: str) -> dict[str, np.ndarray]:
    import zipfile
    import zlib

    try:
        with np.load(file, allow_pickle=False) as opened:
            return {key: opened[key] for key in opened.files}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, OSError, AttributeError) as error:
        raise CorruptArtifact(
            f"{name} is no recorded episode: {type(error).__name__}", hint="lore eval RUN --record 3 makes new ones"
        ) from None
