"""After a power cut at any moment every acknowledged version is whole, whatever of the rest reached the disk.

Two disks are made of the one that :mod:`tests.power` keeps: ``strict``, which has nothing but what was synced, and
``names``, which has all names but no byte of what was not synced, as ext4 after some seconds.
"""

import os

import pytest

from lore_datasets.errors import Busy, CorruptArtifact, NoSpace
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice
from tests.power import Disk, written


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "names"])
def test_what_was_acknowledged_survives_a_power_cut_at_any_moment(tmp_path, env, monkeypatch, strict):
    root, acknowledged, cuts, before = tmp_path / "datasets", [], [], [None]

    def cut(disk):
        found = disk.left(strict)
        state = found, len(acknowledged)
        if state == before[0]:  # nothing is on the disk that was not there at the last cut
            cuts.append(cuts[-1])
            return
        before[0] = state
        left = Store(written(found, tmp_path / "left"), wait=1)
        held = left.versions("hit") if "hit" in left.names() else []
        assert [left.verify(f"hit@v{n}").digest for n in held][: len(acknowledged)] == acknowledged
        assert len(held) <= len(acknowledged) + 1
        if held:
            assert left.current("hit").version == held[-1]
        cuts.append(len(held))

    root.mkdir()
    disk = Disk(root, cut)
    monkeypatch.setattr(os, "fsync", disk.synced)
    monkeypatch.setattr("lore_datasets.store.commit._SYNC_THREADS", 1)
    for seed in range(2):
        acknowledged.append(small_advice(root, env, 4, seed=seed, name="hit").digest)
        cut(disk)
    assert set(cuts) == {0, 1, 2} and len(cuts) > 80
    monkeypatch.undo()
    after = small_advice(tmp_path / "left", env, 4, seed=9, name="hit")
    assert after.version == 3 and Store(tmp_path / "left").verify(after) == after


@pytest.mark.parametrize("error", [NoSpace("full"), Busy("somebody else was first")], ids=lambda e: e.kind)
def test_a_version_with_its_tag_is_committed_once_even_if_main_cannot_follow(root, env, monkeypatch, caplog, error):
    from lore_datasets.store import commit

    def fails(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(commit, "move_branch", fails)
        ref = small_advice(root, env, 4, seed=5)
    store = Store(root)
    assert ref.version == 3 and store.verify("small") == ref and "main of small was not moved to v3" in caplog.text
    assert small_advice(root, env, 4, seed=6).version == 4 and store.versions("small") == [1, 2, 3, 4]


def test_labels_and_rollbacks_that_returned_survive_a_power_cut(tmp_path, env, monkeypatch):
    root = tmp_path / "datasets"
    root.mkdir()
    disk = Disk(root, lambda disk: None)
    monkeypatch.setattr(os, "fsync", disk.synced)
    for seed in range(2):
        small_advice(root, env, 4, seed=seed, name="hit")
    Store(root).tag("hit@v1", "good")
    Store(root).tag("hit@v2", "good")
    Store(root).rollback("hit@v1")
    left = Store(written(disk.left(strict=True), tmp_path / "left"))
    assert left.labels("hit") == {"good": 2} and left.current("hit").version == 1


def test_a_version_that_lost_its_bytes_is_named_and_the_others_are_served(root):
    """What a commit without a sync left behind after seven seconds: names, and empty files behind them."""
    store = Store(root)
    old = Store(root).verify("small@v1")
    folder = root / "small.icechunk"
    newest = (folder / "refs" / "branch.main" / "ref.json").read_text().split('"')[3]
    (folder / "snapshots" / newest).write_bytes(b"")
    for ref in ("branch.main", "tag.v2"):
        (folder / "refs" / ref / "ref.json").write_bytes(b"")
    assert store.versions("small") == [1] and store.verify("small@v1") == old
    survey = store.survey("small")
    assert [m.version for m in survey.manifests] == [1] and survey.current == 0
    assert "small@v2 is damaged: its tag cannot be read; kept: small@v1; next: go on" in survey.damage[0]
    with pytest.raises(CorruptArtifact, match="small@v2 is damaged"):
        store.open("small")
