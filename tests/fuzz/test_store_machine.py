"""The store against a dictionary: whatever is done in whatever order, and whenever it is killed or the power is cut."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from lore_datasets.environments import get_environment
from lore_datasets.exchange.hdf5 import export_hdf5, import_hdf5
from lore_datasets.store.store import Store
from lore_datasets.testing import random_advice, small_advice
from tests.power import Disk, written

ENV = get_environment("crafter")
LONG = bool(os.environ.get("LORE_FUZZ"))
names = st.sampled_from(["a", "b"])
seeds = st.integers(0, 99)
some = st.integers(0, 99)


@dataclass
class Known:
    """What a dataset must be: digests and row counts by version, labels, the version that goes on."""

    digests: dict[int, str] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    current: int = 0

    def version(self, number: int) -> int:
        return sorted(self.digests)[number % len(self.digests)]

    def committed(self, version: int, digest: str, rows: int) -> None:
        self.digests[version], self.rows[version], self.current = digest, rows, version


class Killed(SystemExit):
    """The process ends here: nothing in LoRe may stop it."""


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lore-fuzz-"))
        self.known: dict[str, Known] = {}
        self.patches = [
            mock.patch("os.fsync", lambda handle: self.disk.synced(handle)),
            mock.patch("lore_datasets.store.commit._SYNC_THREADS", 1),
        ]
        self.fuse = -1
        self.open(self.folder / "datasets-0")
        self.root.mkdir()
        self.disk.keep(self.root)
        for patch in self.patches:
            patch.start()

    def teardown(self) -> None:
        for patch in getattr(self, "patches", []):
            patch.stop()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def open(self, root: Path) -> None:
        self.root, self.store = root, Store(root, wait=2)
        self.disk = Disk(root, self.burn)

    def burn(self, disk: Disk) -> None:
        """Count the syncs of the operation under way; at the chosen one the process is killed."""
        if self.fuse == 0:
            self.fuse = -1
            raise Killed
        self.fuse -= self.fuse > 0

    def commit(self, name: str, seed: int) -> None:
        known = self.known.get(name, Known())
        ref = small_advice(self.root, ENV, 1 + seed % 3, seed=seed, name=name)
        rows = known.rows.get(known.current, 0) + 1 + seed % 3
        assert ref.version == max(known.digests, default=0) + 1
        assert self.store.manifest(ref).counts["rows"] == rows
        self.known.setdefault(name, known).committed(ref.version, ref.digest, rows)

    @rule(name=names, seed=seeds)
    def append_and_commit(self, name: str, seed: int) -> None:
        self.commit(name, seed)

    @rule(name=names, seed=seeds)
    def append_and_leave(self, name: str, seed: int) -> None:
        writer = self.store.writer(name, "advice", environment=ENV, skills=ENV.skills)
        writer.append("rows", **random_advice(ENV, 2, np.random.default_rng(seed)))

    @contextmanager
    def interrupted(self, name: str, seed: int, at: int):
        """A commit that is killed at one of its syncs: wholly there or not at all; the machine learns which."""
        known = self.known.get(name, Known())
        self.fuse = at
        try:
            self.commit(name, seed)
            self.fuse = -1
            yield
        except Killed:
            yield
            found = self.store.versions(name) if name in self.store.names() else []
            number = max(known.digests, default=0) + 1
            assert set(found) - {number} == set(known.digests)
            if number in found:
                ref = self.store.verify(f"{name}@v{number}")
                rows = known.rows.get(known.current, 0) + 1 + seed % 3
                self.known.setdefault(name, known).committed(number, ref.digest, rows)

    @rule(name=names, seed=seeds, at=st.integers(0, 60))
    def crash(self, name: str, seed: int, at: int) -> None:
        with self.interrupted(name, seed, at):
            self.store = Store(self.root, wait=2)

    @rule(name=names, seed=seeds, at=st.integers(0, 90), strict=st.booleans())
    def power_cut(self, name: str, seed: int, at: int, strict: bool) -> None:
        with self.interrupted(name, seed, at):
            left = written(self.disk.left(strict), self.folder / f"datasets-{int(self.root.name[9:]) + 1}")
            shutil.rmtree(self.root)
            self.open(left)
            for path in (left, *left.rglob("*")):
                self.disk.keep(path)

    @rule()
    def reopen(self) -> None:
        self.store = Store(self.root, wait=2)

    @rule(which=some, number=some, label=st.sampled_from(["good", "best"]))
    def tag(self, which: int, number: int, label: str) -> None:
        if not self.known:  # no precondition: what is there depends on where a kill hit
            return
        name, known = self.pick(which)
        version = known.version(number)
        assert self.store.tag(f"{name}@v{version}", label).version == version
        known.labels[label] = version

    @rule(which=some, number=some)
    def roll_back(self, which: int, number: int) -> None:
        if not self.known:  # no precondition: what is there depends on where a kill hit
            return
        name, known = self.pick(which)
        known.current = known.version(number)
        assert self.store.rollback(f"{name}@v{known.current}").version == known.current

    @rule(which=some)
    def collect_garbage(self, which: int) -> None:
        if not self.known:
            return
        name, _ = self.pick(which)
        assert self.store.gc(name)[name] >= 0

    @rule(which=some, number=some)
    def export_and_import(self, which: int, number: int) -> None:
        if not self.known:  # no precondition: what is there depends on where a kill hit
            return
        name, known = self.pick(which)
        version = known.version(number)
        file = self.folder / "x.h5"
        assert export_hdf5(self.store, f"{name}@v{version}", file).digest == known.digests[version]
        ref = import_hdf5(file, self.store, "imported")
        assert ref.digest == known.digests[version]
        twin = self.known.setdefault("imported", Known())
        if ref.version not in twin.digests:
            twin.committed(ref.version, ref.digest, known.rows[version])

    def pick(self, which: int) -> tuple[str, Known]:
        name = sorted(self.known)[which % len(self.known)]
        return name, self.known[name]

    @invariant()
    def everything_is_there(self) -> None:
        if not hasattr(self, "store"):
            return
        held = set(self.store.names())
        assert set(self.known) <= held
        assert all(self.store.versions(name) == [] for name in held - set(self.known)), "of a commit that was killed"
        for name, known in self.known.items():
            assert self.store.versions(name) == sorted(known.digests), name
            assert self.store.current(name).version == known.current, name
            assert self.store.labels(name) == known.labels, name
            newest = max(known.digests)
            assert self.store.verify(f"{name}@v{newest}").digest == known.digests[newest]
            assert self.store.manifest(f"{name}@v{known.current}").counts["rows"] == known.rows[known.current]

    @rule(which=some, number=some)
    def verify(self, which: int, number: int) -> None:
        if not self.known:  # no precondition: what is there depends on where a kill hit
            return
        name, known = self.pick(which)
        version = known.version(number)
        assert self.store.verify(f"{name}@v{version}").digest == known.digests[version]


def test_the_store_is_what_a_dictionary_says_whatever_happens_to_it() -> None:
    examples, steps = (15, 20) if LONG else (6, 8)
    about = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(StoreMachine, settings=about)
