import os
import random
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

from lore_datasets.advice import load_advice
from lore_datasets.errors import BadInput, CorruptArtifact, LoreError, NewerSchema, NoSpace, NotFound, SchemeMismatch
from lore_datasets.exchange.hdf5 import export_hdf5, import_hdf5, read_hdf5, write_hdf5
from lore_datasets.store.manifest import Artifact, array_spec, canonical_json, sealed
from lore_datasets.store.store import Store
from lore_datasets.testing import small_model


@pytest.fixture
def exported(store, tmp_path):
    path = tmp_path / "small.h5"
    export_hdf5(store, "small", path)
    return path


def test_export_and_import_round_trip_to_equal_digests_with_the_advice_model(store, exported, tmp_path):
    other = Store(tmp_path / "other")
    ref = import_hdf5(exported, other)
    assert ref == store.resolve("small@v2") and other.verify("small") == ref
    before, after = store.open("small"), other.open("small")
    assert all(np.array_equal(after.arrays[p], a) for p, a in before.arrays.items())
    assert other.resolve("small-model").digest == store.resolve("small-model").digest
    assert load_advice("small", other.root).model.keys() == load_advice("small", store.root).model.keys()


@pytest.mark.parametrize("name", ["states", "small@v1", "small-model"])
def test_every_kind_round_trips(store, tmp_path, name):
    export_hdf5(store, name, tmp_path / "x.h5")
    other = Store(tmp_path / "other")
    assert import_hdf5(tmp_path / "x.h5", other) == store.resolve(name)


def test_importing_twice_adds_nothing_and_another_name_keeps_the_digest(store, exported):
    assert import_hdf5(exported, store) == store.resolve("small@v2")
    assert store.versions("small") == [1, 2]
    renamed = import_hdf5(exported, store, "renamed")
    assert renamed.digest == store.resolve("small").digest
    assert store.manifest("renamed-model").parents == (str(renamed),)


def test_a_number_that_is_taken_by_other_content_moves_to_the_next_free_one(store, exported, tmp_path, env):
    from lore_datasets.testing import small_advice

    other = Store(tmp_path / "other")
    for seed in (7, 8):
        small_advice(other.root, env, 4, seed=seed)
    ref = import_hdf5(exported, other)
    assert ref.version == 3 and ref.digest == store.resolve("small@v2").digest
    assert other.versions("small") == [1, 2, 3]
    assert small_advice(other.root, env, 4, seed=9).version == 4


def test_a_file_with_only_numpy_and_h5py_installed_gives_the_same_advice(store, exported):
    code = """
import sys
for name in ("zarr", "icechunk", "filelock", "torch", "pydantic", "prefect"):
    sys.modules[name] = None
from lore_datasets.advice import load_advice
data = load_advice(sys.argv[1])
print(data.ref, len(data.rows), len(data.model), len(data.skills))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, str(exported)], capture_output=True, text=True, env=environment)
    assert done.stdout.split()[:3] == [str(store.resolve("small")), "80", "3"], done.stderr


def test_an_export_replaces_an_older_file_at_once_and_leaves_no_parts(store, exported):
    first = exported.read_bytes()
    export_hdf5(store, "small@v1", exported)
    assert exported.read_bytes() != first and read_hdf5(exported).manifest.version == 1
    assert [p.name for p in exported.parent.iterdir() if p.name != "datasets"] == ["small.h5"]


def test_a_disk_that_fills_keeps_the_older_file(store, exported, monkeypatch):
    before = exported.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace, match=r"small\.h5 as it was"):
        export_hdf5(store, "small@v1", exported)
    assert exported.read_bytes() == before and len(list(exported.parent.glob("*small.h5*"))) == 1


QUOTA = """
import resource, signal, sys
from lore_datasets.exchange.hdf5 import export_hdf5
from lore_datasets.store.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    export_hdf5(Store(sys.argv[1]), "small", sys.argv[2])
except Exception as error:
    print(error.kind)
"""


def test_a_quota_that_fills_while_a_file_is_written_is_an_error_of_ours_and_leaves_no_draft(store, tmp_path):
    command = [sys.executable, "-c", QUOTA, str(store.root), str(tmp_path / "x.h5")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "no_space\n"), done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["datasets"]


def test_drafts_of_killed_exports_go_with_the_next_one_and_those_of_living_ones_stay(store, tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for process in (dead.pid, os.getppid()):
        (tmp_path / f".x.h5.{process}-0.tmp").write_bytes(b"half")
    export_hdf5(store, "small", tmp_path / "x.h5")
    assert sorted(p.name for p in tmp_path.glob("*x.h5*")) == [f".x.h5.{os.getppid()}-0.tmp", "x.h5"]


def test_every_array_of_a_file_has_checksums(exported):
    plain = []

    def note(name, member):
        if isinstance(member, h5py.Dataset) and member.size and member.shape and not member.fletcher32:
            plain.append(name)

    with h5py.File(exported) as file:
        file.visititems(note)
        assert file["round-000/logits"].fletcher32
    assert plain == []


@pytest.mark.parametrize("flips", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_flipped_bit_and_no_cut_comes_through(exported, flips):
    good, data, rng = read_hdf5(exported), exported.read_bytes(), random.Random(flips)
    refused = 0
    for trial in range(flips):
        at = rng.randrange(len(data))
        spoiled = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        exported.write_bytes(spoiled if trial % 5 else data[:at])
        try:
            found = read_hdf5(exported)
        except LoreError as error:
            assert isinstance(error, CorruptArtifact)
            refused += 1
            continue
        assert found.ref == good.ref and all(np.array_equal(found.arrays[p], a) for p, a in good.arrays.items())
    assert refused > flips / 5


def rewritten(path, artifact, spoil):
    """Write an artifact whose arrays were changed by ``spoil`` and whose manifest states the new digests."""
    arrays = {p: a.copy() for p, a in artifact.arrays.items()}
    spoil(arrays)
    manifest = replace(artifact.manifest, arrays={p: array_spec(a) for p, a in sorted(arrays.items())})
    write_hdf5(Artifact(manifest, arrays), path)
    return path


SPOILED = {
    "not a number": (lambda a: a["round-000/logits"].__setitem__((0, 0), np.nan), BadInput, "NaN"),
    "a logit out of range": (lambda a: a["round-000/confidence"].__setitem__(0, 7.0), BadInput, "allowed 0..1"),
    "keys of other states": (lambda a: a["round-001/key_goal"].__iadd__(1), BadInput, "does not hold the keys"),
    "lengths below nothing": (lambda a: a["round-000/plan_lengths"].fill(-5), BadInput, "plan_lengths"),
    "a plan of unknown ids": (lambda a: a["round-000/plans"].fill(999), BadInput, "rows/plans"),
    "a skill outside the language": (lambda a: a["round-000/skills/json"].fill("{}"), BadInput, "skill"),
    "an unknown array": (lambda a: a.update({"round-000/x": np.zeros(3)}), CorruptArtifact, "unknown array"),
    "a round too few": (
        lambda a: [a.pop(p) for p in list(a) if p.startswith("round-000")],
        CorruptArtifact,
        "consecutive",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_a_file_with_right_digests_but_wrong_values_is_not_imported(exported, tmp_path, case):
    spoil, error, message = SPOILED[case]
    other = Store(tmp_path / "other")
    with pytest.raises(error, match=message):  # an unknown array cannot even be written
        path = rewritten(tmp_path / "bad.h5", read_hdf5(exported), spoil)
        import_hdf5(path, other)
    assert other.names() == []
    if (tmp_path / "bad.h5").exists():  # training from the file itself holds it to the same rules
        with pytest.raises(error, match=message):
            load_advice(str(tmp_path / "bad.h5"), texts=False)


def patched(path, change):
    """Change an exported file in place through h5py."""
    with h5py.File(path, "r+") as file:
        change(file)


def put_manifest(file, manifest):
    del file["manifest"]
    file["manifest"] = np.frombuffer(canonical_json(sealed(manifest)).encode(), np.uint8)


def test_a_newer_schema_and_another_key_scheme_are_refused_by_name(exported, store):
    artifact = read_hdf5(exported)
    patched(exported, lambda f: put_manifest(f, replace(artifact.manifest, schema=3)))
    with pytest.raises(NewerSchema, match="schema 3, this program reads up to 2"):
        import_hdf5(exported, store)
    patched(
        exported, lambda f: (put_manifest(f, replace(artifact.manifest, key_scheme="crafter/0")), f.pop("advice_model"))
    )
    with pytest.raises(SchemeMismatch, match="crafter/0"):
        load_advice(str(exported))
    with pytest.raises(SchemeMismatch, match="crafter/0"):
        import_hdf5(exported, store, "other")


def test_wrong_digests_are_refused_by_the_name_of_the_array(exported, store):
    def change(file):
        file["round-000/confidence"][2] = 0.25

    patched(exported, change)
    with pytest.raises(CorruptArtifact, match="array round-000/confidence"):
        import_hdf5(exported, store)


def test_a_trillion_declared_rows_are_refused_before_allocation(exported, tmp_path):
    artifact = read_hdf5(exported)
    rows, specs = 10**12, dict(artifact.manifest.arrays)
    for path, spec in specs.items():
        if path.count("/") == 1 and path.startswith("round-000"):
            specs[path] = replace(spec, shape=(rows, *spec.shape[1:]))

    def change(file):
        for path, spec in specs.items():
            if spec.shape[:1] == (rows,):
                del file[path]
                if spec.dtype == "str":
                    del file[path + ".offsets"]
                    file.create_dataset(path, shape=(0,), dtype="u1")
                    file.create_dataset(path + ".offsets", shape=(rows + 1,), chunks=(10**6,), dtype="i8")
                else:
                    chunks = (10**6, *spec.shape[1:])
                    file.create_dataset(path, shape=spec.shape, chunks=chunks, dtype=spec.dtype)
        put_manifest(file, replace(artifact.manifest, arrays=specs))

    patched(exported, change)
    with pytest.raises(CorruptArtifact, match="not stored wholly"):
        read_hdf5(exported)


def test_a_file_that_expands_beyond_what_one_deflate_can_is_refused(tmp_path, store):
    artifact = store.open("small-model")
    big = np.zeros(40_000_000, np.uint8)
    arrays = {**artifact.arrays, "model/big": big}
    manifest = replace(artifact.manifest, arrays={p: array_spec(a) for p, a in sorted(arrays.items())})
    path = tmp_path / "big.h5"
    write_hdf5(Artifact(manifest, arrays), path)
    assert read_hdf5(path).arrays["model/big"].nbytes == 40_000_000  # honest: deflate reaches 1032 to 1

    def deflate_twice(file):
        del file["model/big"]
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk((4_000_000,))
        layout.set_deflate(9)
        layout.set_deflate(9)
        space = h5py.h5s.create_simple(big.shape)
        h5py.h5d.create(file["model"].id, b"big", h5py.h5t.STD_U8LE, space, layout).write(space, space, big)

    patched(path, deflate_twice)
    with pytest.raises(CorruptArtifact, match="model/big"):
        read_hdf5(path)


def test_a_small_file_that_would_take_much_memory_is_refused_before_it_is_read(tmp_path, store):
    artifact = store.open("small-model")
    arrays = {**artifact.arrays, "model/big": np.zeros(90_000_000, np.uint8)}
    manifest = replace(artifact.manifest, arrays={p: array_spec(a) for p, a in sorted(arrays.items())})
    write_hdf5(Artifact(manifest, arrays), path := tmp_path / "big.h5")
    assert path.stat().st_size < 2**20
    with pytest.raises(CorruptArtifact, match="declares 86 MiB of arrays, a file of its size may hold"):
        read_hdf5(path)


LINKS = {
    "a soft link": lambda f, t: f.__setitem__("round-000/mask", h5py.SoftLink("/round-001/mask")),
    "an external link": lambda f, t: f.__setitem__("round-000/mask", h5py.ExternalLink(str(t), "/round-001/mask")),
    "a group": lambda f, t: f.create_group("round-000/mask"),
    "external storage": lambda f, t: f.create_dataset(
        "round-000/mask", (48, f["round-000/logits"].shape[1]), "u1", external=[(str(t), 0, h5py.h5f.UNLIMITED)]
    ),
    "a virtual dataset": lambda f, t: f.create_virtual_dataset("round-000/mask", _layout(f, t)),
    "nothing": lambda f, t: None,
}


def _layout(file, target):
    layout = h5py.VirtualLayout(file["round-000/logits"].shape, "u1")
    layout[:] = h5py.VirtualSource(str(target), "round-000/mask", file["round-000/logits"].shape)
    return layout


@pytest.mark.parametrize("case", LINKS)
def test_nothing_outside_the_file_is_read(exported, tmp_path, case):
    secret = tmp_path / "secret"
    secret.write_bytes(b"\1" * 100_000)

    def change(file):
        del file["round-000/mask"]
        LINKS[case](file, secret)

    patched(exported, change)
    with pytest.raises(CorruptArtifact, match="mask"):
        read_hdf5(exported)


def test_unknown_members_foreign_files_and_missing_files_are_refused(exported, tmp_path):
    patched(exported, lambda f: f.create_dataset("surprise", data=[1]))
    with pytest.raises(CorruptArtifact, match="unknown array 'surprise'"):
        read_hdf5(exported)
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(CorruptArtifact, match="no LoRe manifest"):
        read_hdf5(tmp_path / "foreign.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(CorruptArtifact, match="not an HDF5 file"):
        read_hdf5(tmp_path / "text.h5")
    with pytest.raises(NotFound):
        load_advice(str(tmp_path / "absent.h5"))


def test_an_advice_model_made_for_other_rows_is_refused(store, tmp_path, env):
    small_model(store.root, env, store.resolve("small@v1"), seed=9)
    artifact, stranger = store.open("small@v2"), store.open("small-model@v2")
    write_hdf5(Artifact(artifact.manifest, artifact.arrays, stranger), tmp_path / "x.h5")
    with pytest.raises(CorruptArtifact, match="made for other rows"):
        read_hdf5(tmp_path / "x.h5")


def test_the_name_in_a_file_cannot_lead_out_of_the_store(exported, store):
    with pytest.raises(BadInput):
        import_hdf5(exported, store, "../outside")
    artifact = read_hdf5(exported)
    patched(exported, lambda f: put_manifest(f, replace(artifact.manifest, name="../outside")))
    with pytest.raises(CorruptArtifact, match="dataset reference"):
        import_hdf5(exported, store)
    assert not (store.root.parent / "outside.icechunk").exists()
