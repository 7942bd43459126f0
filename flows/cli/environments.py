"""``lore env ...``: which environments there are, what one is about, whether its adapter keeps its word."""

from __future__ import annotations

from typing import Annotated

import tyro

from lore_datasets.errors import BadInput

__all__ = ["check", "list_environments", "show"]

Word = Annotated[str, tyro.conf.Positional]


def list_environments() -> int:
    """List the environments and families of them that are known by name."""
    from lore_datasets.environments import known_environments

    found = known_environments()
    width = max(map(len, found))
    for name, where in found.items():
        print(f"{name:<{width}}  {where}")
    print("a family takes an id of its own, as minigrid:MiniGrid-DoorKey-8x8-v0; your own: module:Class")
    return 0


def show(environment: Word) -> int:
    """Show the words, skills, rules and score of one environment.

    Args:
        environment: Its name, or your own as module:Class.
    """
    from lore_datasets.environments import get_environment

    found = get_environment(environment, named=True)
    vocab, score = found.vocab, found.score
    lists = ("actions", "targets", "items", "vitals", "achievements")
    lines = [("name", found.name), ("family", found.family or "none"), ("keys", found.key_scheme)]
    words = f"at most {vocab.mission_length} of {len(vocab.mission_words)} words" if vocab.mission_length else "none"
    lines += [(name, f"{len(getattr(vocab, name))}: {', '.join(getattr(vocab, name)) or 'none'}") for name in lists]
    lines += [
        ("view", "{} by {} cells".format(*vocab.view) if found.symbolic else "none: pixels alone"),
        ("clock", ", ".join(vocab.clock) or "none"),
        ("mission", words),
        ("skills", ", ".join(skill.name for skill in found.skills) or "none"),
        ("rule book", f"{len(found.rules)} rules, digest {found.rules.digest[:12]}" if found.rules else "none"),
        ("players", ", ".join(found.players) or "none of its own"),
        ("score", f"{score.name}, over {score.protocol}; chance {'unknown' if score.chance is None else score.chance}"),
        ("game", found.game or "none: words alone"),
    ]  # fmt: skip
    for name, text in lines:
        print(f"{name:<13}{text}")
    return 0


def check(environment: Word, steps: int = 1000, seed: int = 0) -> int:
    """Run the conformance suite on an environment's adapter.

    Args:
        environment: Its name, or your own as module:Class.
        steps: Random steps to play.
        seed: Of worlds and actions.
    """
    from lore.config import EnvConfig
    from lore.envs import make_env
    from lore_datasets.environments import get_environment
    from lore_datasets.testing import check_adapter
    from pipeline.questions.describe import describe

    observation = "symbolic" if get_environment(environment, named=True).symbolic else "pixels"
    config = EnvConfig(name=environment, observation=observation)
    make_env(config, seed)  # what cannot be made at all is said in its own words
    found = check_adapter(lambda: make_env(config, seed), describe, steps=steps, seed=seed)
    for each in found:
        mark = "bad " if each.fault else "skip" if each.skipped else "ok  "
        print(f"{mark}  {each.name}" + (f": {each.fault or each.skipped}" if each.fault or each.skipped else ""))
    bad = [each.name for each in found if each.fault]
    if bad:
        raise BadInput(
            f"the adapter of {environment} fails {len(bad)} of {len(found)} checks: {'; '.join(bad)}",
            hint="mend what the lines above name (docs/adding-an-environment.md)",
        )
    return 0
