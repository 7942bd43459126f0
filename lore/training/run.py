"""One training run on disk: its parts built from the configuration, saved to a checkpoint and restored from it."""

from __future__ import annotations

import json
import time
from collections import deque
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lore.advice.source import AdviceSource
from lore.advice.uniform import UniformSource, uniform_advice
from lore.config import SIZES, Config, from_dict, to_dict
from lore.dreamer.disagreement import HEADS
from lore.envs.base import Step, make_env_fns
from lore.envs.vector import VectorEnv
from lore.fast import compiled, parallel
from lore.options.carry_over import carry_over
from lore.options.controller import Controller
from lore.options.slots import Slots
from lore.replay.backends import check_room, make_replay
from lore.replay.ring import Replay, latent_fields
from lore.synthetic.rollout import plan_table
from lore.training import checkpoint
from lore.training.advice_versions import is_same_dataset, relabel
from lore.training.agent import Agent, resolve_device
from lore.training.clock import Ratio
from lore.training.learner import Learner
from lore.training.metrics import Means
from lore.training.player import Player
from lore_datasets.advice import AdviceData, shared_advice
from lore_datasets.atomic import held
from lore_datasets.environments import get_environment
from lore_datasets.errors import NotFound, SchemeMismatch, UsageError
from lore_datasets.revisions import Revision

__all__ = ["CHECKPOINT", "Run", "load_for_evaluation", "lock_run", "read_config"]

CHECKPOINT = "checkpoint.safetensors"


def read_config(folder: Path) -> Config:
    """The configuration a run was started with; NotFound when there is no run."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise NotFound(f"no run in {folder}", hint="start one with lore train --run-dir DIR")
    return from_dict(json.loads(path.read_text())["config"])


def lock_run(folder: Path) -> AbstractContextManager[None]:
    """Hold the run's folder; Busy when another trainer has it. The lock dies with the process."""
    return held(folder / ".lock", f"another trainer holds {folder}", hint="wait for it, or choose another --run-dir")


def _open_advice(config: Config) -> AdviceData | None:
    if not config.needs_advice:
        return None
    data = shared_advice(config.advice.dataset)
    if data.environment.name != config.env.name:
        raise SchemeMismatch(
            f"advice {data.ref} is about {data.environment.name}, the run plays {config.env.name}",
            hint="choose an advice dataset of the same environment",
        )
    if data.actions != data.environment.vocab.actions:
        raise SchemeMismatch(
            f"advice {data.ref} speaks of {len(data.actions)} actions, not of the game's"
            f" {len(data.environment.vocab.actions)}",
            hint="make the dataset with this version of the environment",
        )
    return uniform_advice(data) if config.advice.prior == "uniform" else data


class Run:
    """All parts of one training run; what :func:`lore.training.loop.train` moves forward.

    Args:
        config: the run's configuration. folder: where it lives.
        seed_offset: added to the seed of environments and sampling (evaluation uses another stream than training).
        with_replay: False for evaluation.
    """

    def __init__(self, config: Config, folder: Path, *, seed_offset: int = 0, with_replay: bool = True) -> None:
        train = config.train
        self.config, self.folder = config, Path(folder)
        self.device = resolve_device(train.device)
        compiled.divide_threads(train.threads, SIZES[config.model.size], self.device)
        self.environment = get_environment(config.env.name)
        self.advice = _open_advice(config)
        self.source = None
        if self.advice is not None:
            source = UniformSource if config.advice.prior == "uniform" else AdviceSource
            self.source = source(
                self.advice, min_confidence=config.advice.min_agreement,
                only_informative=not config.advice.accept_uninformative, cache_size=config.advice.cache_size,
            )  # fmt: skip
        streams = np.random.SeedSequence((train.seed, seed_offset)).generate_state(5)
        skills = self.advice.skills if self.advice else ()
        init = torch.Generator().manual_seed(int(np.random.SeedSequence(train.seed).generate_state(1)[0]))
        self.agent = Agent(config, self.environment, len(skills), init).to(self.device)
        self.envs = VectorEnv(make_env_fns(config.env, int(streams[1])))
        self.slots = self._make_slots(skills)
        self.controller = Controller(
            config, self.source, self.slots, config.env.num_envs, self.agent.num_actions,
            np.random.default_rng(int(streams[2])),
        )  # fmt: skip
        self.player = Player(
            self.agent, self.controller, config.env.num_envs, self.device,
            torch.Generator(self.device).manual_seed(int(streams[3])),
        )  # fmt: skip
        self.learner: Learner | None = None
        self.replay: Replay | None = None
        if with_replay:
            self._make_training_parts(int(streams[4]), int(streams[0]))
        self.ratio = Ratio(train.train_ratio / train.batch_size)
        self.steps: list[Step] = []
        self.frames = 0
        self.episodes = 0
        self.recent: deque[float] = deque(maxlen=20)
        self.returns = np.zeros(config.env.num_envs)
        self.successes: list[list[bool]] = []
        self.means = Means()
        self.seconds = 0.0
        self.rows: dict[str, int] = {}  # rows of metrics and episodes on disk at the checkpoint

    def _make_slots(self, skills: tuple) -> Slots | None:
        options = self.config.options
        if not options.enabled:
            return None
        names = tuple(s.name for s in skills)
        return Slots(options.max_options, names, options.confidence_threshold)

    def _make_training_parts(self, update_seed: int, replay_seed: int) -> None:
        config, advice = self.config, self.advice
        plans = None
        if config.synthetic.enabled and advice is not None:
            rows = advice.rows
            plans = plan_table(rows.plans, rows.plan_lengths, rows.plan_scores, self.agent.num_actions)
            self.controller.plan_probe = self.player.foretell
        generator = torch.Generator(self.device).manual_seed(update_seed)
        self.learner = Learner(self.agent, config, generator, self.device, plans)
        size = self.agent.world_model.size
        fields: dict[str, tuple[tuple[int, ...], Any]] = {
            "state": ((self.environment.layout.size,), np.uint8), "action": ((), np.int64), "reward": ((), np.float32),
            "is_first": ((), np.bool_), "is_last": ((), np.bool_), "is_terminal": ((), np.bool_),
            **latent_fields(size.deter, size.stoch),
        }  # fmt: skip
        if config.env.observation == "pixels":
            fields["image"] = ((64, 64, 3), np.uint8)
        if advice is not None:
            fields |= {
                "proposals": ((len(advice.skills),), np.int8), "skill": ((), np.int16), "row": ((), np.int32),
            }  # fmt: skip
        if self.agent.advice_head is not None:
            width = self.agent.num_actions + (len(advice.skills) if advice else 0)
            fields |= {"advice": ((width,), np.float16), "confidence": ((), np.float32)}
            self.learner.gate = self.controller.gate
        length = config.train.sequence_length + 1
        capacity = max(config.train.replay_capacity, length * config.env.num_envs)
        check_room(config, fields, self.folder, self.device)
        self.replay = make_replay(
            fields, capacity, config.env.num_envs, replay_seed, length=length, folder=self.folder, device=self.device
        )

    def revisions(self) -> list[Revision]:
        """Requests for better skills: one for each that was retired so far."""
        if self.slots is None or self.advice is None:
            return []
        names, out = self.environment.vocab.actions, []
        for skill, s in zip(self.advice.skills, self.slots.statistics, strict=True):
            if s.retired:
                last = s.failure
                out.append(Revision(
                    skill=skill.name, skill_json=skill.to_json(), uses=s.uses, success_rate=round(s.success_rate, 4),
                    steps_per_use=round(s.steps / max(1, s.uses), 2), outcomes=dict(s.outcomes),
                    actions=tuple(names[a] for a in last.get("actions", [])), state=last.get("state", ""),
                    outcome=last.get("outcome", ""), frame=self.frames, advice=str(self.advice.ref),
                ))  # fmt: skip
        return out

    # -- saving and restoring ---------------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with: sizes, observation, environment, skills."""
        return {
            "size": self.config.model.size,
            "observation": self.config.env.observation,
            "environment": self.config.env.name,
            "entries": self.agent.actor_critic.actions,
            "skills": len(self.advice.skills) if self.advice else 0,
            **({"ensemble": HEADS} if self.agent.ensemble is not None else {}),
            **({"advice_head": True} if self.agent.advice_head is not None else {}),
        }

    def _expected(self) -> dict[str, Any]:
        """:meth:`identity`, without the number of skills where the checkpoint learned from another version of the same
        dataset and says which skills it knew: what it has of them is carried over by name."""
        expected = self.identity()
        path = self.folder / "config.json"
        before = json.loads(path.read_text()).get("advice", "") if path.is_file() else ""
        if self.advice is not None and is_same_dataset(before, str(self.advice.ref)):
            del expected["skills"]
        return expected

    def save(self) -> str:
        """Write the whole run to its checkpoint (atomic, the previous one kept); returns the SHA-256."""
        assert self.learner is not None and self.replay is not None
        arrays, cursors = self.replay.state_dict()
        tensors: dict[str, Any] = {f"agent/{k}": v for k, v in self.agent.state_dict().items()}
        tensors |= {f"learner/{k}": v for k, v in self.learner.tensors().items()}
        tensors |= {f"player/{k}": v for k, v in self.player.tensors().items()}
        tensors["player/generator"] = self.player.generator.get_state()
        tensors |= {f"replay/{k}": v for k, v in arrays.items()}
        meta = {
            **self.identity(),
            "config": to_dict(self.config),
            "advice": str(self.advice.ref) if self.advice else "",
            "skill_names": [skill.name for skill in self.advice.skills] if self.advice else [],
            "frames": self.frames, "episodes": self.episodes, "recent": list(self.recent),
            "returns": self.returns.tolist(), "successes": self.successes, "seconds": self.seconds,
            "rows": self.rows,
            "learner": self.learner.state_dict(), "replay": cursors, "controller": self.controller.state_dict(),
            "ratio": self.ratio.state_dict(), "means": self.means.state_dict(), "envs": self.envs.state_dict(),
            "steps": [_step_to_json(s) for s in self.steps],
            "machine": machine(), "saved": time.time(),
        }  # fmt: skip
        return checkpoint.save(self.folder / CHECKPOINT, tensors, meta)

    def restore(self) -> dict[str, Any]:
        """Continue from the checkpoint; returns its meta data. SchemeMismatch names what does fit."""
        assert self.learner is not None and self.replay is not None
        tensors, meta = checkpoint.load(self.folder / CHECKPOINT, self._expected(), fall_back=True)
        if self.source is not None and meta["advice"] != str(self.source.data.ref):
            fresh = {f"agent/{k}": v for k, v in self.agent.state_dict().items()}
            fresh |= {f"learner/{k}": v for k, v in self.learner.tensors().items()}
            carry_over(tensors, meta, fresh, self.source.data.skills, self.environment.vocab)
            relabel(tensors, self.source)
        self._restore_agent(tensors, meta)
        self.learner.load(_part(tensors, "learner/"), meta["learner"])
        player = _part(tensors, "player/")
        self.player.generator.set_state(player.pop("generator").cpu())
        self.player.load(player)
        self.replay.load_state_dict({k: v.numpy() for k, v in _part(tensors, "replay/").items()}, meta["replay"])
        self.ratio.load_state_dict(meta["ratio"])
        self.means.load_state_dict(meta["means"])
        self.envs.load_state_dict(meta["envs"])
        self.steps = [self._step_from_json(e, s) for e, s in enumerate(meta["steps"])]
        self.frames, self.episodes, self.seconds = meta["frames"], meta["episodes"], meta["seconds"]
        self.recent.extend(meta["recent"])
        self.returns[:] = meta["returns"]
        self.successes = meta["successes"]
        self.rows = meta.get("rows", {})
        return meta

    def _restore_agent(self, tensors: dict[str, Any], meta: dict[str, Any]) -> None:
        self.agent.load_state_dict(_part(tensors, "agent/"))
        self.controller.load_state_dict(meta["controller"])
        if self.slots is not None and self.learner is not None:
            self.learner.set_slots(self.slots.skill)

    def _step_from_json(self, env: int, value: dict[str, Any]) -> Step:
        state = np.frombuffer(bytes.fromhex(value.pop("state")), np.uint8).copy()
        info = value.pop("info")
        info["achievements"] = np.array(info["achievements"], np.int16)
        image = self.envs.envs[env].render() if self.config.env.observation == "pixels" else None
        return Step(state=state, image=image, info=info, **value)


def _part(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _step_to_json(step: Step) -> dict[str, Any]:
    info = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in step.info.items()}
    return {
        "state": step.state.tobytes().hex(), "reward": float(step.reward), "is_first": bool(step.is_first),
        "is_last": bool(step.is_last), "is_terminal": bool(step.is_terminal), "info": info,
    }  # fmt: skip


def machine() -> dict[str, Any]:
    """What an exact resume depends on: threads, CPU capability, versions."""
    return {
        "threads": parallel.threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def load_for_evaluation(folder: Path, seed_offset: int) -> Run:
    """A run's agent and controller from its checkpoint, with environments and sampling of another stream than
    training."""
    config = read_config(folder)
    if not (Path(folder) / CHECKPOINT).exists():
        raise UsageError(f"{folder} has no checkpoint yet", hint="train it first: lore train")
    run = Run(config, folder, seed_offset=seed_offset, with_replay=False)
    tensors, meta = checkpoint.load(Path(folder) / CHECKPOINT, run.identity(), fall_back=True)
    rng_state = run.controller.rng.bit_generator.state
    run._restore_agent(tensors, meta)
    run.controller.rng.bit_generator.state = rng_state
    run.controller.charges = [type(c)() for c in run.controller.charges]
    if run.controller.gate is not None:
        run.controller.gate.trust.forget_open()
    if run.slots is not None:
        run.slots.worth.forget_open()
    run.frames = meta["frames"]
    return run
