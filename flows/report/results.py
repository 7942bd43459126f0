"""What a finished run of a study leaves: one small JSON file, all that the study's page is made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flows.jobs.training_process import arguments
from flows.report.read import RunData, read_run
from lore.config import Config
from lore.config import replace as configured
from lore.presets import MACHINE
from lore.training.records import read_json
from lore_datasets.atomic import write_text
from lore_datasets.environments import get_environment
from lore_datasets.errors import BadInput, CorruptArtifact
from lore_datasets.json_text import parsed

__all__ = ["MODES", "TAGS", "evaluated_at", "guidance_end", "read_evaluation", "read_result", "run_of", "settings_of",
           "write_result"]  # fmt: skip

SCHEMA = 1
MODES = ("as_trained", "agent_alone", "primitives_only")
"""How a policy is evaluated."""
TAGS = (
    "llm_adapter/coverage_row", "llm_adapter/coverage_program", "llm_adapter/coverage_goal",
    "llm_adapter/coverage_model", "llm_adapter/coverage_none", "uncertainty_gate/beta", "uncertainty_gate/entropy",
    "uncertainty_gate/avg_kl", "uncertainty_gate/kl_per_step", "uncertainty_gate/held_share", "uncertainty_gate/trust",
    "uncertainty_gate/advice_regret", "kickstart/agreement", "options/step_share", "options/active",
    "options/avg_success_rate", "synthetic/ratio", "synthetic/weight", "synthetic/open_loop_error",
    "synthetic/plans_executed", "synthetic/false_unlock_rate", "train/rand/action", "opt/updates",
)  # fmt: skip
"""Statistics of the paths that a study reports, means over a run's rows."""


def settings_of(config: Config, episodes: int) -> str:
    """The settings of a run that its figures follow from, as words of a command line: those that are not defaults."""
    plain = Config()
    usual = {name: getattr(plain.train, name.removeprefix("train.")) for name in MACHINE}
    words = arguments(configured(config, **usual), plain)
    return " ".join([*words, "--episodes", str(episodes)])


def guidance_end(config: Config) -> int | None:
    """Step at which the guidance ends: a prefill, or both kickstarting and the gate (its weight, its budget or the
    share of episodes that it guides); None where it never does, or there is none.
    """
    gate = config.gate
    if not gate.enabled:
        return config.advice.prefill_steps or None
    ends = [gate.budget_steps] if 0 in (gate.beta_max_end, gate.delta_target_end) else []
    ends += [gate.anneal_steps] if gate.anneal_steps else []
    ends += [gate.guided_steps] if gate.guided != "always" and not gate.guided_end else []
    if not ends or (gate.kickstart and gate.kickstart_floor):
        return None
    return max(min(ends), gate.kickstart_steps if gate.kickstart else 0)


def evaluated_at(config: Config) -> dict[int, float]:
    """Step -> share of the budget since the guidance ended: 0, 10 and 50 %, where they lie before the run's end; {}
    where it never ends.
    """
    end, steps = guidance_end(config), config.train.steps
    if end is None:
        return {}
    return {at: share for share in (0.0, 0.1, 0.5) if (at := end + round(share * steps)) <= steps}


def write_result(path: Path, cell: str, seed: int, folder: Path, config: Config, episodes: int) -> dict[str, Any]:
    """Write what the run in ``folder`` came to, and return it; ``evaluation-STEP.json`` are its earlier evaluations."""
    run, after = read_run(folder), evaluated_at(config)
    names = get_environment(config.env.name).vocab.achievements
    settings, progress = settings_of(config, episodes), run.progress or {}
    evaluations = [_evaluation(e, after, config.env.num_envs) for e in _evaluations(folder, run.evaluation)]
    value = {
        "schema": SCHEMA, "cell": cell, "seed": seed, "steps": progress.get("step", 0), "settings": settings,
        "advice": run.advice, "unused_advice": run.unused_advice,
        "environment": config.env.name, "minutes": round(progress.get("seconds", 0.0) / 60.0, 2),
        "episodes": {
            "step": [e["step"] for e in run.episodes], "return": [e["return"] for e in run.episodes],
            "length": [e["length"] for e in run.episodes],
            "unlocked": [[k for k, n in enumerate(names) if e["achievements"].get(n)] for e in run.episodes],
        },
        "evaluations": evaluations,
        "statistics": {tag: float(f"{mean:.5g}") for tag in TAGS if (mean := run.mean(tag)) is not None},
    }  # fmt: skip
    write_text(path, json.dumps(value) + "\n")  # one line: episodes have thousands of numbers
    return value


def _evaluations(folder: Path, last: dict[str, Any] | None) -> list[dict[str, Any]]:
    earlier = [read_evaluation(path) for path in folder.glob("evaluation-*.json")]
    found = {e["frames"]: e for e in [*earlier, *([last] if last else [])]}
    return [found[step] for step in sorted(found)]


def _evaluation(found: dict[str, Any], after: dict[int, float], games: int) -> dict[str, Any]:
    """``after``: :func:`evaluated_at`; a run of several games stops at the first multiple of them from there on."""
    at = found["frames"]
    share = next((share for step, share in after.items() if step <= at < step + games), None)
    out: dict[str, Any] = {"step": at, "after_guidance": share}
    for mode, body in found["final_policy"].items():
        rates = {name: round(rate["rate"], 2) for name, rate in body["achievements"].items() if rate["rate"]}
        out[mode] = {"returns": body["returns"], "score": round(body["score"], 3), "achievements": rates}
    return out


def read_result(path: Path, settings: str | None = None) -> dict[str, Any] | None:
    """The figures of a finished run; None when there are none, or only some of other ``settings``.

    BadInput when the file is not what :func:`write_result` writes.
    """
    if not path.is_file():
        return None
    try:
        value: Any = parsed(path.read_text(encoding="utf-8"))
    except ValueError:
        value = {}
    if not _is_whole(value, path):
        raise BadInput(f"{path} does not hold the figures of a run", hint="remove it; the same command makes it anew")
    return value if settings is None or value["settings"] == settings else None


def _is_whole(value: Any, path: Path) -> bool:
    """Whether a result has everything that :func:`write_result` writes, in its form."""
    try:
        run_of(value, path)
        episodes, evaluations = value["episodes"], value["evaluations"]
        modes = [e[m] for e in evaluations for m in MODES if m in e or m == MODES[0]]
        numbers = [value["seed"], value["steps"], value["minutes"], *value["statistics"].values()]
        numbers += [n for name in ("step", "return", "length") for n in episodes[name]]
        numbers += [e["step"] for e in evaluations] + [n for m in modes for n in (m["score"], *m["returns"])]
        numbers += [share for e in evaluations if (share := e["after_guidance"]) is not None]
        numbers += [rate for m in modes for rate in m["achievements"].values()]
        is_ours = value["schema"] == SCHEMA
        texts = [value[name] for name in ("cell", "settings", "advice", "unused_advice")]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return False
    plain = all(isinstance(n, (int, float)) for n in numbers) and all(isinstance(text, str) for text in texts)
    return is_ours and plain and all(m["returns"] for m in modes)


def read_evaluation(path: Path) -> dict[str, Any]:
    """An evaluation that was made in the course of a run; CorruptArtifact where the file holds something else."""
    found = read_json(path) or {}
    try:
        whole = isinstance(found["frames"], int) and bool(found["final_policy"]["as_trained"]["returns"])
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise CorruptArtifact(
            f"{path} holds no evaluation", kept="the file as it is", hint="mend it, or move the whole run away"
        )
    return found


def run_of(value: dict[str, Any], path: Path) -> RunData:
    """A result in the form of a run that was read from its folder; its series are single means."""
    names = get_environment(value["environment"]).vocab.achievements
    episodes = value["episodes"]
    rows = zip(episodes["step"], episodes["return"], episodes["length"], episodes["unlocked"], strict=True)
    last = value["evaluations"][-1] if value["evaluations"] else None
    return RunData(
        name=path.stem, path=path, config={"env": {"name": value["environment"]}}, advice=value["advice"],
        unused_advice=value["unused_advice"],
        series={tag: ([value["steps"]], [mean]) for tag, mean in value["statistics"].items()},
        episodes=tuple(
            {"step": at, "return": total, "length": length, "achievements": {names[k]: 1 for k in unlocked}}
            for at, total, length, unlocked in rows
        ),
        evaluation=last and {"final_policy": {mode: last[mode] for mode in MODES if mode in last}},
        progress={"step": value["steps"], "seconds": 60.0 * value["minutes"]},
    )  # fmt: skip
