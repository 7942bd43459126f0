import contextlib

import icechunk
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lore_datasets.advice import load_advice
from lore_datasets.errors import BadInput, CorruptArtifact, NoSpace, NotFound, SchemeMismatch, SkillError
from lore_datasets.exchange.hdf5 import export_hdf5, import_hdf5
from lore_datasets.language.skills import parse_skill
from lore_datasets.store.bucket import Bucket
from lore_datasets.store.manifest import version_digest
from lore_datasets.store.repository import SUFFIX
from lore_datasets.store.store import Store, default_root
from lore_datasets.testing import random_advice, random_states, small_advice, small_states


def fresh_skill(env, name):
    body = {"version": 1, "name": name, "start": {"op": "true"}, "steps": [{"do": "act", "action": "noop"}]}
    return parse_skill({**body, "done": {"op": "false"}, "max_steps": 5}, env.vocab)


def advice_writer(store, env, name="fresh", **overrides):
    return store.writer(name, "advice", **{"environment": env, "skills": env.skills, **overrides})


def test_names_versions_and_references_of_a_store(store):
    assert store.names() == ["small", "small-model", "states"]
    assert store.versions("small") == [1, 2]
    newest = store.resolve("small")
    assert newest.version == 2 and newest == store.resolve(str(newest)) == store.resolve(f"small#{newest.digest}")
    assert store.resolve("small@v1").digest != newest.digest


def test_what_was_appended_is_what_is_read(tmp_path, env, rng):
    rows = random_advice(env, 40, rng)
    writer = advice_writer(Store(tmp_path), env)
    for part in (slice(0, 15), slice(15, 40)):
        writer.append("rows", **{name: values[part] for name, values in rows.items()})
    artifact = Store(tmp_path).open(writer.commit("two parts"))
    for name, values in rows.items():
        found = artifact.arrays[f"round-000/{name}"]
        assert found.tolist() == values if name == "reason" else np.array_equal(found, values)
    assert artifact.manifest.counts["rows"] == 40 and artifact.manifest.message == "two parts"


def test_a_next_advice_version_keeps_the_rounds_before_and_names_its_parent(store):
    before, after = store.open("small@v1"), store.open("small@v2")
    assert all(np.array_equal(after.arrays[path], array) for path, array in before.arrays.items())
    assert {p.split("/")[0] for p in after.arrays} == {"round-000", "round-001"}
    assert after.manifest.parents == (str(before.ref),) and after.manifest.counts["rows"] == 80


def test_a_next_states_version_stands_alone(root, env):
    small_states(root, env, 10, seed=5)
    artifact = Store(root).open("states")
    assert artifact.manifest.version == 2 and artifact.arrays["round-000/state"].shape[0] == 10


def test_equal_content_gives_equal_digests_whatever_the_name_time_and_message(tmp_path, env):
    a, b = (small_advice(tmp_path, env, 8, seed=3, name=name) for name in ("a", "b"))
    assert a.digest == b.digest and a.name != b.name
    assert small_advice(tmp_path, env, 8, seed=4, name="c").digest != a.digest
    assert version_digest(Store(tmp_path).manifest("a")) == a.digest


def test_an_unknown_dataset_or_version_lists_what_exists(store):
    with pytest.raises(NotFound, match="small, small-model, states"):
        store.open("zebra")
    with pytest.raises(NotFound, match="did you mean small"):
        store.open("smal")
    with pytest.raises(NotFound, match="small@v1, small@v2"):
        store.open("small@v7")
    with pytest.raises(NotFound, match="has digest"):
        store.open("small@v1#00000000")
    with pytest.raises(NotFound, match="small@v1, small@v2"):
        store.resolve("small#00000000")


def test_a_label_moves_and_versions_do_not(store):
    assert store.labels("small") == {}
    store.tag("small@v1", "good")
    assert store.resolve("small@good").version == 1
    store.tag("small@v2", "good")
    assert store.labels("small") == {"good": 2} and store.versions("small") == [1, 2]
    assert store.show("small")["labels"] == ["good"]
    with pytest.raises(NotFound, match="good"):
        store.resolve("small@bad")
    for label in ("v3", "../x", "Good", ""):
        with pytest.raises(BadInput):
            store.tag("small@v1", label)


def test_after_a_rollback_the_bare_name_and_the_next_round_mean_the_earlier_version(root, env):
    store = Store(root)
    before = {n: store.open(f"small@v{n}") for n in (1, 2)}
    assert store.rollback("small@v1") == store.current("small") == store.resolve("small") == before[1].ref
    assert store.versions("small") == [1, 2] and store.manifest("small").version == 1
    made = small_advice(root, env, 16, seed=9)
    third = store.open("small")
    assert made.version == 3 and store.current("small") == third.ref  # the commit ended the rollback
    assert third.manifest.parents == (str(before[1].ref),)
    assert third.manifest.counts["rows"] == before[1].manifest.counts["rows"] + 16
    assert all(np.array_equal(third.arrays[path], array) for path, array in before[1].arrays.items())
    for n, artifact in before.items():
        again = store.open(f"small@v{n}")
        assert again.ref == artifact.ref and again.manifest == artifact.manifest
    small_advice(root, env, 16, seed=10)
    assert store.manifest("small").parents == (str(third.ref),)


def test_rolling_back_to_the_newest_version_undoes_a_rollback(root):
    store = Store(root)
    store.rollback("small@v1")
    assert store.rollback("small@v2") == store.current("small")
    store.tag("small@v1", "good")
    assert store.rollback("small@good").version == 1
    store.gc()
    assert store.current("small").version == 1 and store.verify("small@v2").version == 2
    with pytest.raises(NotFound, match="v7"):
        store.rollback("small@v7")


def test_an_import_into_a_rolled_back_dataset_is_its_newest_version(root, tmp_path):
    from lore_datasets.exchange.hdf5 import export_hdf5, import_hdf5

    store = Store(root)
    export_hdf5(store, store.resolve("small@v2"), tmp_path / "two.h5")
    store.rollback("small@v1")
    copied = import_hdf5(tmp_path / "two.h5", Store(tmp_path / "other"), "small")
    assert copied.digest == store.resolve("small@v2").digest
    assert import_hdf5(tmp_path / "two.h5", store, "small").digest == copied.digest
    assert store.versions("small")[:2] == [1, 2]


def test_show_is_plain_json_and_holds_the_whole_manifest(store):
    import json

    body = json.loads(json.dumps(store.show("small@v2")))
    assert body["ref"] == str(store.resolve("small@v2")) and body["manifest"]["counts"]["rows"] == 80


def test_verify_reads_everything_and_returns_the_reference(store):
    assert store.verify("small@v1") == store.resolve("small@v1")


def test_the_default_root_is_a_variable_or_runs_datasets(monkeypatch, tmp_path):
    monkeypatch.delenv("LORE_DATASETS", raising=False)
    assert default_root().parts == ("runs", "datasets")
    monkeypatch.setenv("LORE_DATASETS", str(tmp_path))
    assert Store().root == tmp_path and Store().names() == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["logits", "confidence", "plan_scores"])
def test_not_a_number_and_infinity_are_refused_by_the_name_of_the_array(tmp_path, env, rng, name, value):
    rows = random_advice(env, 3, rng)
    rows[name].flat[1] = value
    with pytest.raises(BadInput, match=f"rows/{name} holds NaN or infinity"):
        advice_writer(Store(tmp_path), env).append("rows", **rows)
    assert Store(tmp_path).names() == []


BAD_ROWS = {
    "logits above the clip": ("logits", lambda a: a * 0 + 6, "allowed -5..5"),
    "confidence above one": ("confidence", lambda a: a + 1, "allowed 0..1"),
    "a mask of two": ("mask", lambda a: a * 0 + 2, "allowed 0..1"),
    "a known logit without its mask": ("mask", lambda a: a * 0, "not 0 where mask is 0"),
    "a plan id outside the action space": ("plans", lambda a: a * 0 + 999, "allowed -1.."),
    "a plan longer than its length": ("plan_lengths", lambda a: a * 0, "up to plan_lengths"),
    "a wrong dtype": ("plan_lengths", lambda a: a + 0.5, "do not fit int16"),
    "a number too large": ("plan_lengths", lambda a: a.astype(int) + 70000, "do not fit int16"),
    "a missing axis": ("plans", lambda a: a[..., 0], "expected 3 axes"),
    "another length": ("confidence", lambda a: a[1:], "lengths differ"),
    "a text that is none": ("reason", lambda a: [1] * len(a), "must hold texts"),
    "a NUL in a text": ("reason", lambda a: ["\0"] * len(a), "without NUL"),
    "half a character": ("reason", lambda a: ["\ud800"] * len(a), "not valid Unicode"),
    "keys of other states": ("key_fine", lambda a: np.arange(6), "does not hold the keys"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_refused(tmp_path, env, rng, case):
    name, spoil, message = BAD_ROWS[case]
    rows = random_advice(env, 6, rng)
    rows[name] = spoil(rows.get(name))
    with pytest.raises(BadInput, match=message):
        advice_writer(Store(tmp_path), env).append("rows", **rows)


def test_unknown_and_missing_arrays_groups_and_kinds_are_refused_with_the_list(tmp_path, env, rng):
    store = Store(tmp_path)
    rows = random_advice(env, 3, rng)
    writer = advice_writer(store, env)
    with pytest.raises(BadInput, match="key_fine"):
        writer.append("rows", **rows, colour=[1, 2, 3])
    with pytest.raises(BadInput, match="lacks mask"):
        writer.append("rows", **{k: v for k, v in rows.items() if k != "mask"})
    with pytest.raises(BadInput, match="rows, answers, rejects, skills"):
        writer.append("round-000", **rows)
    with pytest.raises(BadInput, match="states, advice, advice_model"):
        store.writer("x", "advise", environment=env)
    with pytest.raises(BadInput, match="not plain JSON"):
        store.writer("x", "states", environment=env, config={"lr": float("nan")})


def test_nothing_to_commit_and_a_second_commit_are_refused(tmp_path, env, rng):
    writer = advice_writer(Store(tmp_path), env, skills=())
    with pytest.raises(BadInput, match="nothing to commit"):
        writer.commit("empty")
    writer.append("rows", **random_advice(env, 3, rng, 0))
    writer.commit("once")
    with pytest.raises(BadInput, match="has committed"):
        writer.commit("twice")


def test_a_writer_left_by_an_exception_writes_nothing(tmp_path, env, rng):
    with pytest.raises(KeyboardInterrupt), advice_writer(Store(tmp_path), env) as writer:
        writer.append("rows", **random_advice(env, 3, rng))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_later_rounds_may_add_skills_at_the_end_and_nothing_else(root, env, rng):
    store = Store(root)
    new = fresh_skill(env, "wait_a_bit")
    writer = advice_writer(store, env, "small", skills=(*env.skills, new))
    writer.append("rows", **random_advice(env, 4, rng, len(env.skills) + 1))
    assert store.open(writer.commit("one more skill")).manifest.skills[-1] == "wait_a_bit"
    writer = advice_writer(store, env, "small", skills=env.skills)
    writer.append("rows", **random_advice(env, 4, rng))
    with pytest.raises(SchemeMismatch, match="skills of small@v3"):
        writer.commit("forgot one")
    assert store.versions("small") == [1, 2, 3]


def test_a_dataset_keeps_its_kind(store, env, rng):
    writer = store.writer("small", "states", environment=env)
    state = random_states(env, 2, rng).pack()
    writer.append("rows", state=state, episode=[0, 0], step=[0, 1], source=[0, 0])
    with pytest.raises(BadInput, match="kind advice, not states"):
        writer.commit("wrong kind")


def test_stored_skills_must_parse_and_carry_their_name(tmp_path, env):
    skill = fresh_skill(env, "wait_a_bit")
    for name, text, error in [
        ("wait_a_bit", "{}", SkillError),
        ("other", skill.to_json(), BadInput),
        ("wait_a_bit", skill.to_json().replace("noop", "fly"), SkillError),
    ]:
        writer = advice_writer(Store(tmp_path), env, skills=("wait_a_bit",))
        writer.append("skills", name=[name], json=[text], origin=["model"])
        with pytest.raises(error):
            writer.commit("bad skill")
    assert Store(tmp_path).names() == []


def test_counts_and_costs_add_up(tmp_path, env, rng):
    writer = advice_writer(Store(tmp_path), env)
    writer.append("rows", **random_advice(env, 3, rng))
    for _ in range(2):
        writer.count(rejected={"malformed": np.int64(1)}, asked=2)
        writer.spent(price_usd=0.25, requests=1)
    manifest = Store(tmp_path).manifest(writer.commit("counted"))
    assert manifest.counts["rejected"] == {"malformed": 2} and manifest.counts["asked"] == 4
    assert manifest.cost == {"price_usd": 0.5, "requests": 2}


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30) | st.sampled_from(["../up", "/etc/x", "a/../../b", "con", "a.icechunk", "good"]))
def test_no_name_makes_anything_outside_the_root(tmp_path_factory, env, name):
    folder = tmp_path_factory.getbasetemp() / "names"
    root = folder / "root"
    root.mkdir(parents=True, exist_ok=True)
    writer = None
    try:
        writer = Store(root).writer(name, "states", environment=env)
    except BadInput as error:
        assert str(error).isascii()
    with contextlib.suppress(BadInput, NotFound):
        Store(root).open(name)
    assert [p.name for p in folder.iterdir()] == ["root"] and list(root.iterdir()) == []
    assert writer is None or name.isascii()


def test_symbolic_links_are_refused_as_repository_inside_one_and_as_lock(root, store, env):
    (root / "linked.icechunk").symlink_to(root / "small.icechunk")
    assert "linked" not in store.names()
    with pytest.raises(CorruptArtifact, match="symbolic link"):
        store.open("linked")
    victim = next(p for p in (root / "small.icechunk").rglob("*") if p.is_file())
    outside = root.parent / "outside"
    victim.rename(outside)
    victim.symlink_to(outside)
    with pytest.raises(CorruptArtifact, match="link"):
        store.open("small")
    (root / ".locks" / "states.lock").unlink(missing_ok=True)
    (root / ".locks" / "states.lock").symlink_to(outside)
    with pytest.raises(CorruptArtifact, match="link"):
        small_states(root, env, 4)
    assert outside.stat().st_size > 0


def test_a_folder_that_a_killed_writer_left_empty_is_no_dataset_and_can_be_used(tmp_path, env):
    (tmp_path / "begun.icechunk").mkdir()
    with pytest.raises(NotFound):
        Store(tmp_path).open("begun")
    assert small_states(tmp_path, env, 4, name="begun").version == 1


def test_a_renamed_repository_is_noticed(root, store):
    (root / "small.icechunk").rename(root / "other.icechunk")
    with pytest.raises(CorruptArtifact, match="calls itself small@v2"):
        store.open("other")


def test_opening_a_store_prints_nothing(root, capfd, env):
    small_states(root, env, 4, name="quiet")
    Store(root).open("quiet")
    assert capfd.readouterr() == ("", "")


def test_garbage_is_collected_on_a_full_disk(root, store, env, monkeypatch):
    from lore_datasets.store import commit

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(commit, "make_tag", full)
        with pytest.raises(NoSpace):
            small_advice(root, env, 4, seed=9)  # its files stay behind

    monkeypatch.setattr("pathlib.Path.write_text", full)
    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    assert store.gc("small")["small"] > 0
    monkeypatch.undo()
    assert store.verify("small").version == 2


def test_a_skill_is_stored_once_with_who_wrote_it(tmp_path, env, rng):
    store, mine = Store(tmp_path), fresh_skill(env, "mine")
    for origins in (["skills abc"], [], ["a person"]):
        writer = advice_writer(store, env, skills=(*env.skills, mine))
        writer.append("rows", **random_advice(env, 4, rng, len(env.skills) + 1))
        if origins:
            writer.append("skills", name=["mine"], json=[mine.to_json()], origin=origins)
        writer.commit("one more round")
    arrays = store.open("fresh").arrays
    assert len(arrays["round-000/skills/name"]) == len(env.skills) + 1 and "round-001/skills/name" not in arrays
    assert arrays["round-000/skills/origin"].tolist().count("skills abc") == 1
    assert arrays["round-002/skills/origin"].tolist() == ["a person"]
    assert load_advice("fresh", tmp_path).skills == (*env.skills, mine)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [("mask", lambda a: a[:, :-1]), ("plan_lengths", lambda a: np.zeros((4, 5), np.int16)),
     ("confidence", lambda a: [[1], [1, 2], 3, 4]), ("logits", lambda a: [[1.0], [1.0, 2.0], [1.0], [2.0]])],
)  # fmt: skip
def test_arrays_whose_shapes_do_not_go_together_are_bad_input(tmp_path, env, rng, name, spoil):
    rows = random_advice(env, 4, rng)
    with pytest.raises(BadInput, match="group rows"):
        advice_writer(Store(tmp_path), env).append("rows", **{**rows, name: spoil(rows[name])})


def test_a_damaged_older_version_hides_no_version_of_another_digest(tmp_path, env):
    old, new = (small_advice(tmp_path, env, 4, seed=i) for i in range(2))
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(tmp_path / "small.icechunk")))
    path = tmp_path / "small.icechunk" / "snapshots" / repository.lookup_tag("v1")
    path.write_bytes(path.read_bytes()[:-40])
    store = Store(tmp_path)
    assert store.resolve(f"small#{new.digest}") == new and store.newest_manifest("small").version == 2
    with pytest.raises(CorruptArtifact, match="small@v1"):
        store.resolve(f"small#{old.digest}")
    small_advice(tmp_path / "other", env, 4, seed=9)
    export_hdf5(Store(tmp_path / "other"), "small", tmp_path / "small.h5")
    assert import_hdf5(tmp_path / "small.h5", store).version == 3


def test_a_name_that_a_killed_writer_entered_in_a_bucket_is_no_dataset_and_can_be_made(tmp_path, env, monkeypatch):
    monkeypatch.setattr(Bucket, "storage", lambda self, name, suffix: icechunk.local_filesystem_storage(
        str(tmp_path / (name + suffix))))  # fmt: skip
    store = Store(Bucket("b", "p"))
    store.root.enter("small", SUFFIX)  # as writers of earlier releases did first
    assert store.names() == ["small"] and store.newest_manifest("small") is None
    enter = Bucket.enter
    monkeypatch.setattr(Bucket, "enter", lambda *of: 1 / 0)  # killed after the repository was made
    with pytest.raises(CorruptArtifact):
        small_states(store.root, env, 4, name="other")
    monkeypatch.setattr(Bucket, "enter", enter)
    for name in ("small", "other"):
        small_states(store.root, env, 4, name=name)
    assert store.names() == ["other", "small"]
