"""Skills made ready to run: conditions as closures over a view, steps as numbered blocks.

A block is a list of steps; nested bodies are blocks of their own, so that a place inside a skill is three small
integers (block, step, ticks spent in it) and a running skill can be saved as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lore_datasets.language.conditions import Condition, compile_condition, target_ids
from lore_datasets.language.geometry import StateView
from lore_datasets.language.skills import Skill
from lore_datasets.vocab import Vocab

__all__ = ["CompiledSkill", "StepNode", "compile_skill"]


def _always(view: StateView) -> bool:
    return True


@dataclass(frozen=True)
class StepNode:
    """One step; ``body`` and ``otherwise`` are block numbers (-1 = none), ``limit`` its times or ticks; ``targets`` are
    those of ``target`` or ``beside``, ``size`` is ``within`` or ``cells``."""

    do: str
    limit: int
    action: int = -1
    targets: tuple[int, ...] = ()
    through: tuple[int, ...] = ()
    size: int = 1
    cond: Condition = _always
    body: int = -1
    otherwise: int = -1


@dataclass(frozen=True)
class CompiledSkill:
    """A skill ready to run."""

    skill: Skill
    start: Condition
    done: Condition
    abort: Condition | None
    blocks: tuple[tuple[StepNode, ...], ...]


def _compile_block(steps: Sequence[dict[str, Any]], vocab: Vocab, blocks: list[tuple[StepNode, ...]]) -> int:
    """Append the block of ``steps`` and all nested ones; returns its number."""
    number = len(blocks)
    blocks.append(())
    nodes = []
    for step in steps:
        do = step["do"]
        if do == "act":
            nodes.append(StepNode(do, step["times"], action=vocab.action(step["action"])))
        elif do == "repeat":
            nodes.append(StepNode(do, step["times"], body=_compile_block(step["body"], vocab, blocks)))
        elif do == "until":
            cond = compile_condition(step["cond"], vocab)
            nodes.append(StepNode(do, step["limit"], cond=cond, body=_compile_block(step["body"], vocab, blocks)))
        elif do != "if":
            targets = target_ids(step.get("target", step.get("beside", step.get("toward", []))), vocab)
            action = vocab.action(step.get("action", "noop")) if do == "wait" or "action" in step else -1
            through, size = target_ids(step.get("through", []), vocab), step.get("within", step.get("cells", 1))
            nodes.append(StepNode(do, step["limit"], action, targets, through, size))
        else:
            cond = compile_condition(step["cond"], vocab)
            then = _compile_block(step["then"], vocab, blocks)
            otherwise = _compile_block(step["otherwise"], vocab, blocks) if step.get("otherwise") else -1
            nodes.append(StepNode(do, 1, cond=cond, body=then, otherwise=otherwise))
    blocks[number] = tuple(nodes)
    return number


_CACHE: dict[int, tuple[Vocab, CompiledSkill]] = {}
_CACHE_SIZE = 4096


def compile_skill(skill: Skill, vocab: Vocab) -> CompiledSkill:
    """The compiled form of a checked skill; kept by identity, so that asking again costs nothing."""
    found = _CACHE.get(id(skill))
    if found is not None and found[1].skill is skill and found[0] is vocab:
        return found[1]
    blocks: list[tuple[StepNode, ...]] = []
    _compile_block(skill.steps, vocab, blocks)
    abort = None if skill.abort is None else compile_condition(skill.abort, vocab)
    compiled = CompiledSkill(
        skill, compile_condition(skill.start, vocab), compile_condition(skill.done, vocab), abort, tuple(blocks)
    )
    if len(_CACHE) >= _CACHE_SIZE:
        _CACHE.clear()
    _CACHE[id(skill)] = (vocab, compiled)
    return compiled
