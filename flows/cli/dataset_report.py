"""The verb ``lore datasets report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from flows.terminal import current

__all__ = ["report"]


def report(
    ref: Annotated[str, tyro.conf.Positional], out: Path | None = None, root: Path | None = None, quick: bool = False
) -> int:
    """Write one self-contained HTML page about an advice version: what was asked, what it is worth, what it says.

    Args:
        ref: Advice version: name, name@vN, name@label or name@vN#digest.
        out: File to write; default runs/reports/NAME-vN.html.
        root: Folder of datasets.
        quick: Without film strips, for which each skill is played once in the game (some seconds).
    """
    from flows.jobs.skill_trials import films_of
    from flows.report.dataset_page import write_dataset_page
    from lore_datasets.advice import load_advice
    from lore_datasets.exchange.shipped import ShippedStore

    store = ShippedStore(root)
    full = store.resolve(ref)
    played, note = {}, ""
    if not quick and store.manifest(full).kind == "advice":
        with current().bar("skills", None):
            advice = load_advice(full, root, texts=False)
            played, note = films_of(advice.environment, advice.skills)
    place = out or Path("runs", "reports", f"{full.name}-v{full.version}.html")
    place.parent.mkdir(parents=True, exist_ok=True)
    path = write_dataset_page(str(full), place, root, played, (note,) if note else ())
    print(f"page: {path.resolve()}")
    return 0
