"""Every knob of the learner, as nested frozen dataclasses; tyro makes the command line from them, Prefect takes them as
they are.

``load_config(**overrides)`` builds a :class:`Config`; overrides are dotted names (``{"train.seed": 3}``), or a leaf
name alone where only one section has it (``seed=3``). Names of before and of the original are understood too
(:mod:`lore.aliases`). Unknown names and values out of range raise ConfigError.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lore.aliases import renamed, setting_name
from lore.gate.config import GateConfig
from lore.sizes import SIZES
from lore_datasets.environments import DEFAULT
from lore_datasets.errors import ConfigError, check_ranges, shown

__all__ = [
    "AdviceConfig",
    "Config",
    "EnvConfig",
    "ModelConfig",
    "OptionsConfig",
    "SyntheticConfig",
    "TrainConfig",
    "from_dict",
    "load_config",
    "replace",
    "to_dict",
]


_INF = float(2**53)


@dataclass(frozen=True)
class EnvConfig:
    """Which game, how it is seen, and how many copies run."""

    name: str = DEFAULT
    """Environment: a name that ``lore env list`` shows, or your own as ``module:Class``."""
    observation: Literal["pixels", "symbolic"] = "pixels"
    """``pixels``: the 64x64x3 frame (the benchmark). ``symbolic``: the visible crop and inventory; never compared
    with pixel scores."""
    num_envs: int = 1
    """Environments stepped together; updates follow the total number of steps."""
    area: tuple[int, int] = (64, 64)
    """World size in cells."""
    length: int = 10_000
    """Steps after which an episode is truncated (not terminal)."""

    def __post_init__(self) -> None:
        check_ranges("env", self, {"num_envs": (1, 1024), "length": (1, _INF)})
        if self.observation not in ("pixels", "symbolic"):
            raise ConfigError.out_of_range("env.observation", self.observation, "pixels or symbolic")
        if len(self.area) != 2 or not all(isinstance(n, int) and 9 <= n <= 512 for n in self.area):
            raise ConfigError.out_of_range("env.area", self.area, "two integers in 9..512")


@dataclass(frozen=True)
class TrainConfig:
    """The training loop and its optimiser."""

    steps: int = 1_000_000
    """Budget in primitive environment steps (``env.step`` calls over all environments)."""
    seed: int = 0
    """Seed of networks, sampling, environments and skills."""
    batch_size: int = 1024
    """Replayed steps per update = sequences x ``sequence_length`` (DreamerV3: 16 x 64; the original's 256 counted
    transitions)."""
    sequence_length: int = 64
    """Steps per replayed sequence."""
    learning_rate: float = 4e-5
    """LaProp step size; DreamerV3's value (the original said 3e-4, which belongs to Adam)."""
    warmup: int = 1000
    """Updates over which the step size rises linearly from 0."""
    train_ratio: float = 512.0
    """Replayed steps per environment step; updates per environment step = train_ratio / batch_size."""
    horizon: int = 15
    """Imagined steps."""
    entropy: float = 3e-4
    """Weight of the policy entropy."""
    replay_capacity: int = 1_000_000
    """Environment steps kept in replay."""
    log_interval: int = 250
    """Environment steps between two rows of metrics."""
    save_interval_s: float = 0.0
    """Seconds between two checkpoints; 0 takes 100 times as long as the last one took, 30 to 900."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    threads: int = 0
    """CPU threads of the learner, shared between compiled loops and torch; 0 takes as many as torch would."""
    wandb: bool = False
    """Numbers also go to Weights & Biases, offline unless ``WANDB_MODE`` says otherwise; needs the extra ``wandb``."""

    def __post_init__(self) -> None:
        ranges = {
            "steps": (1, _INF), "seed": (0, 2**31 - 1), "batch_size": (1, 2**20), "sequence_length": (2, 4096),
            "learning_rate": (0.0, 1.0), "warmup": (0, _INF), "train_ratio": (0.0, 2**20), "horizon": (1, 1000),
            "entropy": (0.0, 10.0), "replay_capacity": (2, _INF), "log_interval": (1, _INF),
            "save_interval_s": (0.0, _INF), "threads": (0, 1024),
        }  # fmt: skip
        check_ranges("train", self, ranges)
        if self.batch_size % self.sequence_length:
            raise ConfigError.out_of_range(
                "train.batch_size", self.batch_size, f"a multiple of sequence_length ({self.sequence_length})"
            )

    @property
    def sequences(self) -> int:
        """Sequences per batch (B)."""
        return self.batch_size // self.sequence_length


@dataclass(frozen=True)
class ModelConfig:
    """The agent's networks."""

    size: str = "12m"
    """Row of the size table: tiny, 1m, 12m, 25m, 50m, 100m, 200m, 400m."""
    actor_unimix: float = 0.0
    """Uniform share mixed into the actor; DreamerV3's code applies none."""
    bf16: bool = False
    """Compute updates under autocast to bfloat16; parameters, norms, logits and losses stay float32."""
    numbers_as_classes: float = 0.0
    """Weight in the reconstruction of symbolic states of counts, vitals, daylight and flags as classes, which tell
    exactly on what rewards depend; 0: their squared errors, of weight 1."""
    tf32: bool = False
    """Multiply float32 matrices in TF32 on a CUDA device: ten bits of mantissa in place of 23; a CPU has none."""

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigError.out_of_range("model.size", self.size, f"one of {', '.join(SIZES)}")
        check_ranges("model", self, {"actor_unimix": (0.0, 0.5), "numbers_as_classes": (0.0, 100.0)})


@dataclass(frozen=True)
class SyntheticConfig:
    """Path A, synthetic replay: advised plans rolled out in the world model."""

    enabled: bool = False
    """Roll advised plans out in the world model."""
    ratio_max: float = 0.25
    """Highest share of synthetic rows among the actor-critic's starts."""
    execution_prob: float = 0.2
    """Share of replayed states with a plan whose plan is rolled out, every fourth update, 64 at most."""
    weight_decay: float = 0.95
    """Factor on the weight of stored synthetic trajectories per refresh of the world model."""
    warmup_updates: int = 200
    """Updates before the first plan is rolled out."""
    max_model_error: float = 5.0
    """Reconstruction loss relative to its best so far above which roll-outs pause."""
    max_open_loop_error: float = 0.5
    """Distance (0..1) between what the model dreams over some steps and what it then sees above which they pause."""
    capacity: int = 4096
    """Synthetic states kept."""
    refresh_updates: int = 20
    """Updates after which stored trajectories lose weight by ``weight_decay``."""
    clone_scale: float = 0.1
    """Weight of the behaviour-cloning term on plan actions that beat the policy's value."""

    def __post_init__(self) -> None:
        check_ranges(
            "synthetic",
            self,
            {
                "ratio_max": (0.0, 1.0),
                "execution_prob": (0.0, 1.0),
                "weight_decay": (0.0, 1.0),
                "warmup_updates": (0, _INF),
                "max_model_error": (0.0, _INF),
                "max_open_loop_error": (0.0, 1.0),
                "capacity": (1, _INF),
                "refresh_updates": (1, _INF),
                "clone_scale": (0.0, 100.0),
            },
        )


MAX_SLOTS = 64
"""Option slots of a network at most."""


@dataclass(frozen=True)
class OptionsConfig:
    """Path C, options: skills of the advice version as actions of the policy."""

    enabled: bool = False
    """Extend the action space by option slots."""
    max_options: int = 8
    """Option slots of the network; 0 = one for every skill of the version. The default is filled as far as the version
    has as many skills, another number of more slots than skills is refused."""
    generation_interval: int = 500
    """Episodes after which skills that wait are judged afresh, and a far better free one takes a slot over."""
    confidence_threshold: float = 0.2
    """A skill whose success rate falls below this after enough uses is retired: a better one is asked for, and another
    one that waits for a slot takes its place."""
    imagine_only_skills: bool = False
    """Imagination chooses single actions only where no skill can start: replay of good advice holds hardly any that
    failed, so the world model promises rewards for all."""

    def __post_init__(self) -> None:
        check_ranges(
            "options",
            self,
            {"max_options": (0, MAX_SLOTS), "generation_interval": (1, _INF), "confidence_threshold": (0.0, 1.0)},
        )


@dataclass(frozen=True)
class AdviceConfig:
    """Which stored advice the three paths read, and how a study asks for it."""

    dataset: str = ""
    """``name@vN#digest`` in the datasets folder, or the path of an HDF5 export."""
    min_agreement: float = 0.0
    """Advice whose calibrated confidence lies below this counts as none."""
    accept_uninformative: bool = False
    """Use a version even where a guesser that never sees the state foretells its advice as well, by its held-out rows;
    without this it counts as none."""
    prior: Literal["stored", "uniform"] = "stored"
    """``uniform`` is a control: the version's skills, all that can start equally likely in every state, no plans."""
    prefill_steps: int = 0
    """Baseline: the version plays so many first steps by itself, each first choice held ``gate.hold`` steps; they are
    the run's and go to replay, and after them the policy acts alone, unadvised. All three paths have to be off."""
    cache_size: int = 2000
    """Look-ups kept by state in memory; 0 switches the cache off."""
    llm_model: str = "gemini-2.5-flash-lite"
    """Model that a study asks where its adviser is ``gemini``; the learner itself never asks."""
    llm_timeout_s: float = 60.0
    """Total deadline of one question of a study, in seconds."""

    def __post_init__(self) -> None:
        ranges = {
            "min_agreement": (0.0, 1.0), "prefill_steps": (0, _INF), "cache_size": (0, _INF),
            "llm_timeout_s": (0.001, 86400.0),
        }  # fmt: skip
        check_ranges("advice", self, ranges)
        if self.prior not in ("stored", "uniform"):
            raise ConfigError.out_of_range("advice.prior", self.prior, "stored or uniform")


@dataclass(frozen=True)
class Config:
    """The whole configuration of one training run."""

    env: EnvConfig = field(default_factory=EnvConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    options: OptionsConfig = field(default_factory=OptionsConfig)
    advice: AdviceConfig = field(default_factory=AdviceConfig)

    def __post_init__(self) -> None:
        if self.needs_advice and not self.advice.dataset:
            raise ConfigError(
                "advice.dataset is empty, but a path that reads advice is on"
                if self._has_path
                else f"advice.dataset is empty, so nobody can play advice.prefill_steps = {self.advice.prefill_steps}",
                hint="give --advice.dataset name@vN or switch the path off",
            )
        if self.advice.prefill_steps and self._has_path:
            raise ConfigError(
                f"advice.prefill_steps = {self.advice.prefill_steps}, but a path that reads advice is on: prefill is"
                " the baseline whose policy is alone after these steps",
                hint="switch gate, synthetic and options off, or leave advice.prefill_steps at 0",
            )
        if self.gate.kickstart not in (0.0, GateConfig.kickstart) and not self.gate.enabled:
            raise ConfigError(
                f"gate.kickstart = {self.gate.kickstart:g}, but path B is off: there is no advice to be drawn to",
                hint="give --gate.enabled, or leave gate.kickstart as it is",
            )
        if self.gate.goal_bonus and not (self.gate.enabled and self.options.enabled):
            raise ConfigError(
                f"gate.goal_bonus = {self.gate.goal_bonus:g}, but path {'C' if self.gate.enabled else 'B'} is off:"
                " nobody advises a goal, or knows when it is reached",
                hint="give --gate.enabled and --options.enabled, or leave gate.goal_bonus at 0",
            )
        if self.options.imagine_only_skills and not self.options.enabled:
            raise ConfigError(
                "options.imagine_only_skills, but path C is off: there are no skills to choose",
                hint="give --options.enabled, or leave it away",
            )
        if self.model.numbers_as_classes and self.env.observation == "pixels":
            raise ConfigError(
                f"model.numbers_as_classes = {self.model.numbers_as_classes:g}, but frames hold no numbers",
                hint="give --env.observation symbolic, or leave it at 0",
            )

    @property
    def keeps_advice(self) -> bool:
        """True when replay keeps the advice of every step: kickstarting or advised goals read it."""
        return self.gate.enabled and (self.gate.kickstart > 0 or self.gate.goal_bonus > 0)

    @property
    def needs_advice(self) -> bool:
        """True when at least one of the three paths is on, or the version plays the first steps."""
        return self._has_path or self.advice.prefill_steps > 0

    @property
    def _has_path(self) -> bool:
        return self.gate.enabled or self.synthetic.enabled or self.options.enabled


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dict of a config (tuples become lists), for JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, (tuple, list)) else value

    return plain(dataclasses.asdict(config))


def from_dict(values: dict[str, Any]) -> Config:
    """Inverse of :func:`to_dict`, also for settings of older runs; unknown sections or fields raise ConfigError."""
    flat = {}
    for section, body in renamed(values).items():
        flat.update({f"{section}.{name}": value for name, value in body.items()})
    return load_config(**flat)


def load_config(**overrides: Any) -> Config:
    """The default configuration with overrides; see the module docstring for their names."""
    return replace(None, **overrides)


def _has_form(value: Any, hint: Any) -> bool:
    """False where a value cannot be that of a field with this type; numbers have ranges of their own."""
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is_number, value, kinds))
    if hint in (bool, str):
        return isinstance(value, hint)
    return get_origin(hint) is not Literal or value in get_args(hint)


def _is_number(value: Any, kind: type) -> bool:
    is_kind = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    return is_kind and abs(value) <= sys.float_info.max


def _form(hint: Any) -> str:
    """The values that a field of this type takes, in words."""
    if get_origin(hint) is tuple:
        return f"{len(get_args(hint))} numbers"
    return {bool: "true or false", str: "a text"}.get(hint) or " or ".join(map(str, get_args(hint)))


def replace(config: Config | None, **overrides: Any) -> Config:
    """``config`` (default: the defaults) with overrides by dotted or unambiguous leaf name."""
    sections: dict[str, type] = dict(get_type_hints(Config))
    leaves: dict[str, list[str]] = {}
    for section, cls in sections.items():
        for leaf in dataclasses.fields(cls):
            leaves.setdefault(leaf.name, []).append(section)
    values: dict[str, dict[str, Any]] = {name: {} for name in sections}
    if config is not None:
        values = {
            name: {f.name: getattr(getattr(config, name), f.name) for f in dataclasses.fields(cls)}
            for name, cls in sections.items()
        }
    given: dict[str, str] = {}
    for key, value in overrides.items():
        name, is_inverted = (key, False) if key in leaves else setting_name(key)
        section, _, leaf = name.rpartition(".")
        owners = leaves.get(leaf, [])
        if not section and len(owners) > 1:
            raise ConfigError(
                f"{leaf!r} stands in several sections", hint=f"write {' or '.join(f'{o}.{leaf}' for o in owners)}"
            )
        section = section or (owners[0] if owners else "")
        if section not in sections or section not in owners:
            near = [f"{o}.{n}" for n, os in leaves.items() for o in os if leaf and (leaf in n or n in leaf)]
            raise ConfigError(
                f"unknown setting {shown(key)!r}",
                hint=f"did you mean {', '.join(near[:4])}?" if near else "see lore train --help",
            )
        new = not value if is_inverted else tuple(value) if isinstance(value, list) else value
        if given.setdefault(f"{section}.{leaf}", key) != key and values[section][leaf] != new:
            both = f"{given[f'{section}.{leaf}']} and {key}"
            raise ConfigError(f"{both} are one setting, given two values", hint=f"give {section}.{leaf} alone")
        hint = get_type_hints(sections[section])[leaf]
        if not _has_form(new, hint):
            raise ConfigError.out_of_range(f"{section}.{leaf}", value, _form(hint))
        values[section][leaf] = new
    return Config(**{name: cls(**values[name]) for name, cls in sections.items()})
