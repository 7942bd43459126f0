"""Damage to any file of a repository is refused, or provably without effect."""

import json
import random
import shutil

import numpy as np
import pytest

from lore_datasets.advice import load_advice
from lore_datasets.errors import CorruptArtifact, LoreError, NewerSchema
from lore_datasets.store.manifest import sealed, to_dict
from lore_datasets.store.repository import open_repository
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice


@pytest.fixture(scope="module")
def sound(tmp_path_factory, env):
    root = tmp_path_factory.mktemp("sound")
    small_advice(root, env, 80)
    small_advice(root, env, 80, seed=2)
    return root, Store(root).open("small")


def files_of(root):
    return sorted(p for p in (root / "small.icechunk").rglob("*") if p.is_file())


def flip(data, rng):
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def outcome(sound, path, damage):
    """``refused`` or ``same``; raises AssertionError when damaged data came through or another error escaped."""
    root, good = sound
    data = path.read_bytes()
    try:
        damage(path)
        try:
            found = Store(root).open("small")
        except LoreError as error:
            assert isinstance(error, CorruptArtifact), error
            return "refused"
        assert found.ref == good.ref
        assert all(np.array_equal(found.arrays[name], array) for name, array in good.arrays.items())
        return "same"
    finally:
        path.write_bytes(data)


@pytest.mark.parametrize("flips", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_flipped_bit_in_any_file_comes_through(sound, flips):
    rng = random.Random(flips)
    files = files_of(sound[0])
    found = [
        outcome(sound, path, lambda p: p.write_bytes(flip(p.read_bytes(), rng))) for path in rng.choices(files, k=flips)
    ]
    assert found.count("refused") > flips / 3


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_no_truncated_file_comes_through(sound, share):
    found = {}
    for path in random.Random(1).sample(files_of(sound[0]), 14):
        kind = path.relative_to(sound[0] / "small.icechunk").parts[0]
        cut = outcome(sound, path, lambda p: p.write_bytes(p.read_bytes()[: int(share * p.stat().st_size)]))
        found.setdefault(kind, set()).add(cut)
    assert found["chunks"] == {"refused"}


def test_a_missing_chunk_is_refused_by_the_name_of_its_array(sound, tmp_path):
    root = shutil.copytree(sound[0], tmp_path / "copy")
    largest = max(files_of(root), key=lambda p: p.stat().st_size if "chunks" in p.parts else 0)
    largest.unlink()
    with pytest.raises(CorruptArtifact, match=r"array round-00[01]/"):
        Store(root).open("small@v2")


def test_damage_to_a_newer_version_leaves_the_older_one_readable(sound, tmp_path):
    root = shutil.copytree(sound[0], tmp_path / "copy")
    store = Store(root)
    old = {snapshot.id for snapshot in open_repository(root, "small").ancestry(tag="v1")}
    for path in files_of(root):
        if "snapshots" in path.parts and path.name not in old:
            path.write_bytes(b"\0" * 100)
    with pytest.raises(CorruptArtifact):
        store.open("small@v2")
    assert store.verify("small@v1").version == 1


def test_an_unreadable_tag_is_not_taken_for_an_older_newest_version(sound):
    path = sound[0] / "small.icechunk" / "refs" / "tag.v2" / "ref.json"
    assert outcome(sound, path, lambda p: p.write_bytes(p.read_bytes()[:9])) == "refused"


def rewrite(root, change):
    """Commit v3 of ``small`` with hand-made attributes and arrays, past every check of the writer."""
    import zarr

    repository = open_repository(root, "small")
    session = repository.writable_session("main")
    group = zarr.open_group(session.store, mode="a")
    manifest = Store(root).manifest("small@v2")
    body = {**to_dict(manifest), "version": 3}
    change(group, body)
    group.attrs.put(resealed(body))
    repository.create_tag("v3", snapshot_id=session.commit("by hand"))
    return Store(root)


def resealed(body):
    import hashlib

    from lore_datasets.store.manifest import canonical_json

    return {"manifest": body, "manifest_sha256": hashlib.sha256(canonical_json(body).encode()).hexdigest()}


def test_a_value_changed_with_valid_checksums_is_caught_by_the_digest(root):
    def change(group, body):
        group["round-000/confidence"][3] = 0.123

    with pytest.raises(CorruptArtifact, match="array round-000/confidence"):
        rewrite(root, change).open("small@v3")
    assert Store(root).open("small@v3", verify=False).manifest.version == 3


def test_an_array_that_the_manifest_does_not_know_is_refused(root):
    def change(group, body):
        group.create_array("round-000/extra", data=np.zeros(3))

    with pytest.raises(CorruptArtifact, match="round-000/extra is not in the manifest"):
        rewrite(root, change).open("small")


HUGE = [(10**9, r"round-000/\w+ of small@v3 has 0 of 1000 chunks"), (10**12, "cut into 1000000 chunks")]


@pytest.mark.parametrize(("rows", "message"), HUGE)
def test_a_billion_declared_rows_are_refused_without_allocating_them(root, rows, message):
    def change(group, body):
        for path, spec in body["arrays"].items():
            if path.startswith("round-000/") and path.count("/") == 1:
                shape = (rows, *spec["shape"][1:])
                dtype = group[path].dtype
                del group[path]
                group.create_array(path, shape=shape, chunks=(10**6, *shape[1:]), dtype=dtype)
                spec["shape"] = list(shape)

    with pytest.raises(CorruptArtifact, match=message):
        rewrite(root, change).open("small", verify=False)


def test_a_chunk_of_a_terabyte_is_refused_without_allocating_it(root):
    def change(group, body):
        shape = (10**12, 104)
        for path, spec in body["arrays"].items():
            if path.startswith("round-000/") and path.count("/") == 1:
                spec["shape"][0] = shape[0]
        del group["round-000/state"]
        group.create_array("round-000/state", shape=shape, chunks=shape, dtype="u1")

    with pytest.raises(CorruptArtifact, match="into 1 chunks of 104000000000000 bytes"):
        rewrite(root, change).open("small", verify=False, wanted=lambda path: path == "round-000/state")


MANIFESTS = {
    "a newer schema": (lambda b: b.update(schema=99), NewerSchema, "schema 99.*up to 2"),
    "no schema": (lambda b: b.pop("schema"), CorruptArtifact, "no LoRe manifest"),
    "an unknown field": (lambda b: b.update(colour=1), CorruptArtifact, "colour"),
    "a field of another type": (lambda b: b.update(actions="noop"), CorruptArtifact, "field actions"),
    "an unknown kind": (lambda b: b.update(kind="spell"), CorruptArtifact, "unknown kind"),
    "a parent that is no reference": (lambda b: b.update(parents=["../x"]), CorruptArtifact, "dataset reference"),
    "an unknown array": (
        lambda b: b["arrays"].update({"round-000/x": b["arrays"]["round-000/mask"]}),
        CorruptArtifact,
        "unknown array",
    ),
    "a negative shape": (lambda b: b["arrays"]["round-000/mask"].update(shape=[-1, 2]), CorruptArtifact, "malformed"),
    "a missing array": (lambda b: b["arrays"].pop("round-000/mask"), CorruptArtifact, "lacks mask"),
    "rounds with a gap": (
        lambda b: b.update(arrays={p: s for p, s in b["arrays"].items() if p.startswith("round-001")}),
        CorruptArtifact,
        "not consecutive",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_wrong_manifest_with_a_valid_seal_is_refused(root, case):
    change, error, message = MANIFESTS[case]
    with pytest.raises(error, match=message):
        rewrite(root, lambda group, body: change(body)).open("small@v3")
    assert Store(root).verify("small@v2").version == 2


def test_a_manifest_without_its_seal_is_refused(store):
    from lore_datasets.store.manifest import unsealed

    stored = sealed(store.manifest("small"))
    assert unsealed(json.loads(json.dumps(stored)), "x") == store.manifest("small")
    stored["manifest"]["counts"]["rows"] = 81
    with pytest.raises(CorruptArtifact, match="does not have its digest"):
        unsealed(stored, "small@v2")


def test_loading_advice_checks_digests_too(root):
    def change(group, body):
        group["round-001/logits"][0, 0] = 0.5

    rewrite(root, change)
    with pytest.raises(CorruptArtifact, match="round-001/logits"):
        load_advice("small", root)
