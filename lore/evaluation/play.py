"""What advice is worth with no learner: lives in fresh worlds that follow a look-up, and what their figures are.

A life is played by :class:`lore.options.play.GoalPlayer`: the best goal that can act is held for some steps or until it
ends, then the advice is asked again. Life ``number`` of a seed has the same world for every adviser, so two of them are
compared world by world. Play over given skills is another protocol than learning: its figures stand apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from lore.advice.lookup import AdviceSource
from lore.advice.types import SOURCES
from lore.config import EnvConfig
from lore.envs import make_env
from lore.options.interpreter import propose
from lore.options.play import GoalPlayer, Ranking
from lore.training.metrics import crafter_score
from lore_datasets.errors import BadInput, ConfigError
from lore_datasets.keys import DARK
from lore_datasets.language.geometry import StateView

if TYPE_CHECKING:
    from lore_datasets.advice import AdviceData

__all__ = ["AdvisedChoice", "Life", "PlaySettings", "check_skills", "difference", "figures", "play_life"]

Interval = list[float]
"""[value, lower, upper bound of its 95 % interval]."""
DRAWS = 2000
"""Bootstrap samples of the lives behind every interval."""


@dataclass(frozen=True)
class PlaySettings:
    """How lives are played. Equal settings and numbers give equal lives."""

    seed: int = 40_000
    """Seed of worlds and walks, apart from training's, evaluation's (10,000) and refresh rounds' (20,000)."""
    hold: int = 12
    """Steps for which a goal is pursued before the advice is asked again."""
    sampled: bool = False
    """Draw each goal from the advice's probabilities; otherwise its first choice is taken."""
    length: int = 10_000
    """Steps after which a life is cut."""
    area: int = 64
    """Width and height of the world in cells."""

    def __post_init__(self) -> None:
        for name, low in (("seed", 0), ("hold", 1), ("length", 1), ("area", 9)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value < 2**31:
                raise ConfigError.out_of_range(name, value, f"{low} or more")


@dataclass(frozen=True)
class Life:
    """One life from birth to its end.

    Attributes:
        number: of the world. reward: sum of the rewards, the life's return. length: steps.
        achievements: how often each was done, those never done left out.
        ended: what stood around the end: hostile things beside the player, ``dark``, ``asleep``, vitals at 0; or
            ``alive at the limit``.
        goal: what was pursued at the end, empty for a primitive action.
        goals: goal -> how its runs ended (``held``: the steps of one choice were over) -> how often.
        spoke: who gave the advice of a choice -> how often. decisions: choices made.
        startable: whether any skill could start in any state of it.
    """

    number: int
    reward: float
    length: int
    achievements: dict[str, int] = field(default_factory=dict)
    ended: str = ""
    goal: str = ""
    goals: dict[str, dict[str, int]] = field(default_factory=dict)
    spoke: dict[str, int] = field(default_factory=dict)
    decisions: int = 0
    startable: bool = True


class AdvisedChoice:
    """What a look-up ranks first, for a :class:`~lore.options.play.GoalPlayer`.

    Args:
        source: one advice version ready to be asked. rng: orders by chance where ``sampled``: a draw without
            replacement from the advised probabilities (Gumbel noise on the logits).

    Attributes:
        spoke: how often each part of the look-up answered: ``row``, ``goal``, ``model``, ``none``, or a program's
            ``rule 3 collect_drink``.
    """

    def __init__(self, source: AdviceSource, rng: np.random.Generator, sampled: bool = False) -> None:
        self.source, self.rng, self.sampled = source, rng, sampled
        self.names = (*source.data.actions, *(skill.name for skill in source.data.skills))
        self.spoke: Counter[str] = Counter()

    def __call__(self, view: StateView) -> Ranking:
        """Goals of one state with their logits, best first; empty where nothing is known."""
        state = np.frombuffer(view.raw, np.uint8)[None]
        found = self.source.lookup(state)
        speaker, program = SOURCES[int(found.source[0])], self.source.program
        if speaker == "program" and program is not None:
            speaker = program.told(int(program.rule_of(state)[0])).partition(":")[0]
        self.spoke[speaker] += 1
        known = np.flatnonzero(found.known[0])
        value = found.logits[0, known].astype(np.float64)
        if self.sampled:
            value = value + self.rng.gumbel(size=len(value))
        order = np.argsort(-value, kind="stable")
        return [(self.names[known[i]], float(value[i])) for i in order]


def check_skills(data: AdviceData) -> None:
    """BadInput when a version has no skills to play with."""
    if not data.skills:
        raise BadInput(f"{data.ref} has no skills, so there is nothing to play", hint="advise with skills first")


def play_life(source: AdviceSource, number: int, settings: PlaySettings = PlaySettings()) -> Life:
    """Play life ``number``; BadInput when the version has no skills to play with."""
    data = source.data
    check_skills(data)
    vocab, rng = data.environment.vocab, np.random.default_rng([settings.seed, number])
    config = EnvConfig(data.environment.name, "symbolic", area=(settings.area, settings.area), length=settings.length)
    game = make_env(config, settings.seed, number)
    choose = AdvisedChoice(source, rng, settings.sampled)
    player = GoalPlayer(choose, data.skills, vocab, settings.hold)
    step, total, startable = game.reset(), 0.0, False
    while not step.is_last:
        view = StateView(step.state, vocab)
        startable = startable or bool((propose(data.skills, view) >= 0).any())
        step = game.step(player(view, rng))
        total += step.reward
    goals: dict[str, dict[str, int]] = {}
    for (goal, outcome), count in sorted(player.outcomes.items()):
        goals.setdefault(goal, {})[outcome] = count
    done = zip(vocab.achievements, step.info["achievements"].tolist(), strict=True)
    return Life(
        number, round(total, 6), int(step.info["length"]), {name: n for name, n in done if n},
        _ending(StateView(step.state, vocab)) if step.is_terminal else "alive at the limit",
        player.goal or "", goals, dict(choose.spoke), player.decisions, startable,
    )  # fmt: skip


def _ending(view: StateView) -> str:
    """What stood around the end of a life, from the last state that was seen."""
    vocab = view.vocab
    beside = [name for name in vocab.hostile if view.near((name,), 1)]
    empty = [name for name in vocab.vitals[1:] if view.vital(name) == 0]  # the first one is 0 when a life has ended
    said = [f"beside {'+'.join(beside)}" if beside else "nothing hostile near"] if vocab.hostile else []
    dark = "daylight" in vocab.clock and view.daylight < DARK
    said += ["asleep"] * view.sleeping + [f"{'+'.join(empty)} at 0"] * bool(empty) + ["dark"] * dark
    return ", ".join(said) or "in a terminal state"


def figures(lives: Sequence[Life], achievements: Sequence[str]) -> dict[str, Any]:
    """What lives of one adviser are worth, as JSON values; every number [mean, lower, upper].

    ``return``, ``length``, ``decisions`` per life; ``score`` (Crafter's, over the lives) and ``achievements`` in per
    cent of the lives; ``ended`` in per cent; ``goals`` (goal -> outcome) and ``spoke`` in times per life; ``lives``;
    ``steps``, the environment steps that all of it took. Intervals: percentile bootstrap over the lives.
    """
    if not lives:
        raise BadInput("no life was played", hint="episodes of 1 or more")
    shares = _counts(lives)
    unlocked = np.array([[100.0 * (name in life.achievements) for name in achievements] for life in lives])
    out: dict[str, Any] = {"lives": len(lives), "steps": sum(life.length for life in lives)}
    for name, values in (
        ("return", [life.reward for life in lives]),
        ("length", [life.length for life in lives]),
        ("decisions", [life.decisions for life in lives]),
    ):
        out[name] = _interval(np.array(values, np.float64))[0]
    out["score"] = _score(unlocked)
    out["achievements"] = dict(zip(achievements, _interval(unlocked), strict=True))
    for kind, scale in (("ended", 100.0), ("spoke", 1.0), ("goals", 1.0)):
        keys = sorted({key for each in shares for key in each[kind]})
        table = np.array([[scale * each[kind].get(key, 0) for key in keys] for each in shares])
        out[kind] = dict(zip(keys, _interval(table), strict=True)) if keys else {}
    nested: dict[str, dict[str, Interval]] = {}
    for (goal, outcome), value in out["goals"].items():
        nested.setdefault(goal, {})[outcome] = value
    out["goals"] = nested
    out["at_end"] = dict(Counter(life.goal or "an action" for life in lives).most_common())
    return out


def _counts(lives: Sequence[Life]) -> list[dict[str, dict[Any, int]]]:
    """Per life: how it ended, who spoke, how goals ended, as counts."""
    return [
        {
            "ended": {life.ended: 1},
            "spoke": life.spoke,
            "goals": {(goal, how): n for goal, ends in life.goals.items() for how, n in ends.items()},
        }
        for life in lives
    ]


def difference(lives: Sequence[Life], others: Sequence[Life], achievements: Sequence[str]) -> dict[str, Interval]:
    """``lives`` less ``others`` in return, length and score: [mean, lower, upper], paired by the world both played.

    BadInput when they share no world.
    """
    mine, theirs = ({life.number: life for life in group} for group in (lives, others))
    both = sorted(mine.keys() & theirs.keys())
    if not both:
        raise BadInput("the two have no world in common", hint="play both with the same seed and episodes")
    pairs = [(mine[n], theirs[n]) for n in both]
    out = {
        "return": _interval(np.array([a.reward - b.reward for a, b in pairs]))[0],
        "length": _interval(np.array([float(a.length - b.length) for a, b in pairs]))[0],
    }
    tables = [np.array([[100.0 * (n in life.achievements) for n in achievements] for life in side])
              for side in zip(*pairs, strict=True)]  # fmt: skip
    weights = _weights(len(both))
    scores = [_scores(weights @ table) for table in tables]
    value = crafter_score(tables[0].mean(0)) - crafter_score(tables[1].mean(0))
    return {**out, "score": [round(value, 4), *_bounds(scores[0] - scores[1])]}


@lru_cache(maxsize=4)
def _weights(n: int) -> np.ndarray:
    """float64[DRAWS, n]: shares of the lives in each bootstrap sample."""
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=DRAWS)
    return drawn / n


def _bounds(draws: np.ndarray) -> list[float]:
    return [round(float(v), 4) for v in np.percentile(draws, [2.5, 97.5])]


def _interval(values: np.ndarray) -> list[Interval]:
    """Of float[N] or [N, F]: the F means with their intervals."""
    table = values.reshape(len(values), -1)
    low, high = np.percentile(_weights(len(table)) @ table, [2.5, 97.5], axis=0)
    return [[round(float(v), 4) for v in row] for row in zip(table.mean(0), low, high, strict=True)]


def _scores(rates: np.ndarray) -> np.ndarray:
    """Crafter scores of rows of success rates in per cent float[..., K]."""
    return np.expm1(np.log1p(rates).mean(-1))


def _score(unlocked: np.ndarray) -> Interval:
    return [round(crafter_score(unlocked.mean(0)), 4), *_bounds(_scores(_weights(len(unlocked)) @ unlocked))]
