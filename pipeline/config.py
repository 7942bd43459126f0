"""Configuration of the offline phase: one frozen dataclass per step, each value checked when it is made."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from lore_datasets.environments import DEFAULT
from lore_datasets.errors import ConfigError, check_ranges
from pipeline.llm.base import KINDS

__all__ = ["AdviseConfig", "AskConfig", "CollectConfig", "PipelineConfig", "SelectConfig", "to_dict"]

_INF = float(2**53)
_SEED = (0, 2**31 - 1)


@dataclass(frozen=True)
class CollectConfig:
    """Which game states are gathered, and by whom."""

    environment: str = DEFAULT
    """Environment to play: a name that ``lore env list`` shows, or your own as ``module:Class``."""
    budget: int = 4000
    """States to gather over all players."""
    stride: int = 5
    """One state in this many steps is kept, at random steps: neighbours in time say nearly the same."""
    max_steps: int = 2000
    """Steps after which an episode is left for a fresh world."""
    seed: int = 0
    """Seed of worlds and players."""

    def __post_init__(self) -> None:
        check_ranges(
            "collect",
            self,
            {"budget": (1, 10_000_000), "stride": (1, 1000), "max_steps": (1, _INF), "seed": _SEED},
        )


@dataclass(frozen=True)
class SelectConfig:
    """Which of the gathered states are worth a question."""

    budget: int = 2000
    """States to ask about; fewer when there are fewer distinct ones."""
    novelty: float = 0.5
    """Share picked by rarity of the goal key; what no share takes is drawn by source weight alone."""
    coverage: float = 0.0
    """Share picked where the advice so far covers no goal key, most visited situations first."""
    unsure: float = 0.0
    """Share drawn by the trained agent's uncertainty, where the states carry one."""
    competent_weight: float = 2.0
    """How much likelier a state of competent play (rules, half-and-half) is drawn than a random player's."""
    seed: int = 0
    """Seed of the draw."""

    def __post_init__(self) -> None:
        shares = {"novelty": (0.0, 1.0), "coverage": (0.0, 1.0), "unsure": (0.0, 1.0)}
        ranges = {"budget": (1, 10_000_000), **shares, "competent_weight": (0.0, 1000.0), "seed": _SEED}
        check_ranges("select", self, ranges)
        total = self.novelty + self.coverage + self.unsure
        if total > 1 + 1e-9:
            raise ConfigError.out_of_range("select.novelty + coverage + unsure", total, "at most 1")


@dataclass(frozen=True)
class AskConfig:
    """Who is asked, how often, and for how much."""

    backend: str = "rules"
    """rules, gemini, openai, local, replay, file, a control (blind, random, degraded), or your own as module:Class."""
    model: str = ""
    """Model name for the backends that have several; empty takes the backend's default."""
    base_url: str = ""
    """Server of the ``openai`` and ``gemini`` backends; empty takes the public one. Plain http only on loopback."""
    batch: Literal["off", "inline", "file"] = "off"
    """Batch jobs (half the price, within a day) of the backends ``gemini`` (requests inside the job, or as a file) and
    ``openai`` (as a file)."""
    max_cost: float = 0.0
    """Stop before the question that could bring all that the journal has paid over so many US dollars; 0: no limit."""
    max_requests: int = 0
    """Stop before one request more than this; 0 sets no limit. Answers from the journal do not count."""
    shard: int = 256
    """States asked about together; a flow runs one task per shard."""
    timeout_s: float = 60.0
    """Total deadline of one question."""
    concurrency: int = 8
    """Questions in flight at a time, for the backends that wait on a network."""
    requests_per_minute: int = 0
    """Requests that a service is sent in any minute at most, retries among them; 0 sets no limit."""
    tokens_per_minute: int = 0
    """Tokens, read and written, that a service is asked for in any minute at most; 0 sets no limit."""
    retries: int = 2
    """Times a question is asked again after a failure or an answer that cannot be used."""
    max_unusable: int = 20
    """Stop after so many answers in a row that cannot be used, with the reason; 0 sets no limit."""
    thinking_tokens: int = -1
    """Tokens that a model may think before it answers, beside the answer's own; -1: none where it can do without."""
    dropped: float = 0.25
    """Share of the answers that the ``degraded`` control drops."""
    wrong: float = 0.25
    """Share of the answers that the ``degraded`` control replaces by a random choice."""
    folder: str = ""
    """Folder of the ``file`` backend: questions go out there, results are read from its ``answers`` folder."""
    partial: bool = False
    """Commit what the ``file`` backend has answers to, although others wait."""
    allow_mixed_models: bool = False
    """Let answers of several model versions into one dataset version."""
    allow_mixed_advisers: bool = False
    """Let several advisers into one dataset."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}|[A-Za-z_][\w.]{0,99}:[A-Za-z_]\w{0,59}", self.backend, re.ASCII):
            raise ConfigError.out_of_range("ask.backend", self.backend, "a backend name such as rules, or module:Class")
        modes = {"gemini": ("off", "inline", "file"), "openai": ("off", "file")}
        if self.batch not in modes.get(self.backend, ("off",)):
            known = "off; file with backend gemini or openai; inline with gemini"
            raise ConfigError.out_of_range("ask.batch", self.batch, known)
        check_ranges(
            "ask",
            self,
            {
                "max_cost": (0.0, 1e6),
                "max_requests": (0, _INF),
                "shard": (1, 100_000),
                "timeout_s": (0.001, 86400.0),
                "concurrency": (1, 256),
                "requests_per_minute": (0, 10_000_000),
                "tokens_per_minute": (0, _INF),
                "retries": (0, 10),
                "max_unusable": (0, _INF),
                "thinking_tokens": (-1, 1_000_000),
                "dropped": (0.0, 1.0),
                "wrong": (0.0, 1.0),
            },
        )


@dataclass(frozen=True)
class AdviseConfig:
    """What is asked for and how answers become rows."""

    kinds: str = "prior,plan,skills"
    """What is asked for, comma-separated: program (one question for a priority program), prior (which goal, per state),
    plan (per state), skills (new ones). A program alone needs no states."""
    program_drafts: int = 1
    """Times the question for a program is asked; several drafts play the same worlds and the best is kept."""
    program_confidence: float = 0.9
    """How sure a program is: the share of what is left that each goal of its ranking takes."""
    plans: int = 3
    """Plans kept per state (P)."""
    plan_length: int = 12
    """Entries of one plan (L); longer plans are cut to their first L entries."""
    plan_share: float = 1.0
    """Share of the states that are also asked for plans."""
    skill_questions: int = 1
    """Questions for new skills per version; 0 asks for none."""
    max_new_skills: int = 8
    """New skills that may enter one version."""
    orders: int = 1
    """Times each state is asked, each with another order of the options; agreement then scales confidence."""
    clip: float = 5.0
    """Logits are centred and lie within plus or minus this; also their whole range in nats."""
    gap: float = 1.0
    """Nats by which an infeasible entry lies at least under the least likely feasible one."""
    floor: float = 1e-3
    """Least probability that advice leaves to the feasible choices together."""
    seed: int = 0
    """Seed of the option orders and of which states are asked for plans."""

    @property
    def wanted(self) -> frozenset[str]:
        """The kinds of questions that ``kinds`` names."""
        return frozenset(part.strip() for part in self.kinds.split(","))

    def __post_init__(self) -> None:
        if not self.wanted <= set(KINDS) or self.wanted == {"skills"}:
            raise ConfigError.out_of_range("advise.kinds", self.kinds, f"some of {', '.join(KINDS)}; not skills alone")
        check_ranges(
            "advise",
            self,
            {
                "program_drafts": (1, 64),
                "program_confidence": (0.01, 1.0),
                "plans": (1, 16),
                "plan_length": (1, 64),
                "plan_share": (0.0, 1.0),
                "skill_questions": (0, 64),
                "max_new_skills": (0, 64),
                "orders": (1, 16),
                "clip": (0.1, 5.0),
                "gap": (0.0, self.clip),
                "floor": (1e-6, 0.5),
                "seed": _SEED,
            },
        )


@dataclass(frozen=True)
class PipelineConfig:
    """The whole offline phase."""

    collect: CollectConfig = field(default_factory=CollectConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    ask: AskConfig = field(default_factory=AskConfig)
    advise: AdviseConfig = field(default_factory=AdviseConfig)


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dict of a config, for manifests; the folder of answers by file is nobody else's and left out."""
    plain = dataclasses.asdict(config)
    if "ask" in plain:
        plain["ask"]["folder"] = ""
    return plain
