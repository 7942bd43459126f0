"""Read what older releases wrote: each migration lifts a manifest by one schema version.

A later schema adds ``m002_...`` here (2 -> 3) and artifacts written with the old one to ``tests/datasets/data``; arrays
are never rewritten on disk, only on their way in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from lore_datasets.environments import get_environment
from lore_datasets.errors import CorruptArtifact, NotFound
from lore_datasets.schema import SCHEMA
from lore_datasets.types import layout_table, vocabulary_of

__all__ = ["MIGRATIONS", "m001_words_and_layout", "migrated"]

Migration = Callable[[dict[str, Any]], dict[str, Any]]


def m001_words_and_layout(body: dict[str, Any]) -> dict[str, Any]:
    """1 -> 2: programs, links from answers to rows, scalars and missions may be there; words and layout are stated."""
    vocabulary, layout = {}, {}
    with suppress(NotFound):  # an environment that is not installed: its rows cannot be read, the manifest can
        environment = get_environment(str(body.get("environment")))
        if environment.key_scheme == body.get("key_scheme"):
            vocabulary, layout = vocabulary_of(environment.vocab), layout_table(environment.vocab)
    return {**body, "vocabulary": vocabulary, "layout": layout}


MIGRATIONS: dict[int, Migration] = {1: m001_words_and_layout}
"""Schema version -> function that turns its manifest (plain JSON) into one of the next version."""


def migrated(
    body: dict[str, Any], migrations: Mapping[int, Migration] = MIGRATIONS, target: int = SCHEMA
) -> dict[str, Any]:
    """A manifest as plain JSON, lifted to ``target``; one of a later schema stays as it is."""
    schema = body["schema"]
    while schema < target:
        if schema not in migrations:
            raise CorruptArtifact(f"written with schema {schema}, which no release can read")
        body = {**migrations[schema](body), "schema": schema + 1}
        schema += 1
    return body
