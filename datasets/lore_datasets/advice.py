"""Advice as the learner reads it: all rounds of one version side by side, with skills and the attached advice model."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from lore_datasets.environments import Environment, get_environment
from lore_datasets.errors import BadInput, CorruptArtifact, LoreError, NotFound
from lore_datasets.exchange.shipped import check_meant, shipped_file
from lore_datasets.keys import check_scheme
from lore_datasets.language.programs import Program
from lore_datasets.language.skills import Skill, parse_skill
from lore_datasets.schema import KINDS, SCHEMA, split_path
from lore_datasets.store.lineage import newest_model
from lore_datasets.store.manifest import Artifact
from lore_datasets.store.reader import skill_texts
from lore_datasets.store.store import Store
from lore_datasets.types import ArtifactRef, Manifest

__all__ = ["AdviceData", "AdviceRows", "advice_from", "load_advice", "program_alone", "shared_advice", "skills_of"]


@dataclass(frozen=True, eq=False)
class AdviceRows:
    """Rows of all rounds, oldest first. N rows, S bytes a state, A actions, K skills, P plans of L steps.

    Rounds that knew fewer skills are padded with columns of mask 0, logit 0, applicable 0.
    """

    state: np.ndarray  # uint8 [N, S]
    key_fine: np.ndarray  # int64 [N]
    key_goal: np.ndarray  # int64 [N]
    logits: np.ndarray  # float32 [N, A+K]
    mask: np.ndarray  # uint8 [N, A+K], 1 = known
    confidence: np.ndarray  # float32 [N]
    plans: np.ndarray  # int16 [N, P, L], ids over A+K, -1 after the end
    plan_lengths: np.ndarray  # int16 [N, P]
    plan_scores: np.ndarray  # float32 [N, P]
    applicable: np.ndarray  # uint8 [N, K]
    reason: np.ndarray  # object [N], str

    def __len__(self) -> int:
        return len(self.state)


@dataclass(frozen=True, eq=False)
class AdviceData:
    """One advice version, ready for look-up.

    ``model``: arrays of the attached advice model by path, or None.
    ``programs``: canonical JSON of the priority programs of all rounds, oldest first; the last one speaks.
    """

    ref: ArtifactRef
    manifest: Manifest
    environment: Environment
    actions: tuple[str, ...]
    skills: tuple[Skill, ...]
    rows: AdviceRows
    model: dict[str, np.ndarray] | None
    programs: tuple[str, ...] = ()


def load_advice(where: str | ArtifactRef, root: Path | str | None = None, *, texts: bool = True) -> AdviceData:
    """Load ``name[@vN][#digest]`` from the store under ``root``, or an HDF5 export by its path; digests are checked.

    A name that the store lacks may be one of the datasets that come with LoRe; its file is read where it lies.
    ``texts=False`` leaves the reasons out (all empty): two fifths of the time for what look-up never reads.
    """
    needed = _needed if texts else lambda path: _needed(path) and not path.endswith("/reason")
    if isinstance(where, str) and where.endswith((".h5", ".hdf5")):
        from lore_datasets.exchange.hdf5 import read_hdf5

        artifact = read_hdf5(where, wanted=needed)
        return advice_from(artifact, artifact.model)
    store = Store(root)
    if (file := shipped_file(where, store)) is not None:
        data = load_advice(str(file), texts=texts)
        check_meant(where, data.ref)
        return data
    artifact = store.open(where, wanted=needed)
    return advice_from(artifact, newest_model(store, artifact.ref))


def program_alone(program: Program, skills: Sequence[Skill], environment: Environment) -> AdviceData:
    """A program that is in no version yet as advice, with nothing beside it: what plays before it may enter one."""
    ref, names = ArtifactRef("program", 0, program.digest), tuple(skill.name for skill in skills)
    manifest = Manifest(
        SCHEMA, "advice", ref.name, ref.version, environment=environment.name, key_scheme=environment.key_scheme,
        actions=environment.vocab.actions, skills=names,
    )  # fmt: skip
    rows = _side_by_side([], manifest, environment)
    texts = (program.text,)
    return AdviceData(ref, manifest, environment, manifest.actions, tuple(skills), rows, None, texts)


def shared_advice(where: str) -> AdviceData:
    """:func:`load_advice` without texts, once per process: the same version is one object, not to be changed.

    The last version alone is kept; a file that has changed since is read anew.
    """
    if where.endswith((".h5", ".hdf5")):
        if not Path(where).is_file():
            raise NotFound(f"no file {where}", hint="put the export back there, or name the dataset in the store")
        about = os.stat(where)
        key = (str(Path(where).resolve()), about.st_mtime_ns, about.st_size)
    elif (file := shipped_file(where, store := Store())) is not None:
        key = (where, str(file), os.stat(file).st_mtime_ns)
    else:
        model = newest_model(store, ref := store.resolve(where), verify=False)
        key = (str(store.root), str(ref), str(model and model.ref))
    with _lock:
        if _last.get("key") != key:
            _last.clear()
            _last.update(key=key, data=load_advice(where, texts=False))
        return _last["data"]


_last: dict[str, Any] = {}
_lock = threading.Lock()


def _needed(path: str) -> bool:
    return "/answers/" not in path and "/rejects/" not in path


def advice_from(artifact: Artifact, model: Artifact | None = None) -> AdviceData:
    """Lay the rounds of an opened version side by side; BadInput or SchemeMismatch when it is not usable advice."""
    manifest = artifact.manifest
    if manifest.kind != "advice":
        raise BadInput(
            f"{artifact.ref} is of kind {manifest.kind}, not advice", hint="give the name of an advice dataset"
        )
    environment = get_environment(manifest.environment)
    check_scheme(manifest.key_scheme, environment)
    rounds: dict[int, dict[str, np.ndarray]] = {}
    programs: list[str] = []
    for path, array in sorted(artifact.arrays.items()):
        index, group, name = split_path("advice", path)
        if group == "rows":
            rounds.setdefault(index, {"reason": np.zeros(0, object)})[name] = array
        elif group == "programs" and name == "json":
            programs += array.tolist()
    for each in rounds.values():
        if len(each["reason"]) != len(each["state"]):  # the texts were left out
            each["reason"] = np.full(len(each["state"]), "", object)
    return AdviceData(
        ref=artifact.ref,
        manifest=manifest,
        environment=environment,
        actions=manifest.actions,
        skills=skills_of(artifact, environment),
        rows=_side_by_side(list(rounds.values()), manifest, environment),
        model=model.arrays if model else None,
        programs=tuple(programs),
    )


def skills_of(artifact: Artifact, environment: Environment) -> tuple[Skill, ...]:
    """The skills that an opened version names, in its order, as it holds them or else as they come with LoRe."""
    texts = skill_texts(artifact.arrays)
    return tuple(_skill(name, texts, environment) for name in artifact.manifest.skills)


def _skill(name: str, texts: dict[str, str], environment: Environment) -> Skill:
    known = {skill.name: skill for skill in environment.skills}
    if name not in texts:
        if name in known:
            return known[name]
        raise CorruptArtifact(f"the version names skill {name} but does not hold it")
    try:
        return parse_skill(texts[name], environment.vocab)
    except LoreError as error:
        raise CorruptArtifact(f"stored skill {name}: {error.message}") from None


def _side_by_side(rounds: list[dict[str, np.ndarray]], manifest: Manifest, environment: Environment) -> AdviceRows:
    actions, skills = len(manifest.actions), len(manifest.skills)
    plans = max((r["plans"].shape[1] for r in rounds), default=0)
    steps = max((r["plans"].shape[2] for r in rounds), default=0)
    sizes = {"S": environment.layout.size, "E": actions + skills, "K": skills, "P": plans, "L": steps}
    columns = {}
    for field in fields(AdviceRows):
        spec = KINDS["advice"]["rows"][field.name]
        trailing = tuple(sizes[axis] for axis in spec.axes[1:])
        parts = [r[field.name] for r in rounds]
        fill = -1 if field.name == "plans" else 0
        dtype = object if spec.dtype == "str" else np.dtype(spec.dtype)
        if len(parts) == 1 and parts[0].shape[1:] == trailing:
            columns[field.name] = parts[0]
            continue
        whole = np.full((sum(map(len, parts)), *trailing), fill, dtype)
        start = 0
        for part in parts:
            whole[(slice(start, start + len(part)), *(slice(0, n) for n in part.shape[1:]))] = part
            start += len(part)
        columns[field.name] = whole
    return AdviceRows(**columns)
