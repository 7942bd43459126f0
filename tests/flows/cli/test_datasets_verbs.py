"""``lore datasets`` through the real store."""

from __future__ import annotations

import json

import pytest

from flows.cli import main as cli
from lore_datasets.environments import get_environment
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice, small_model, small_states


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two advice versions, an advice model and states."""
    folder, env = tmp_path_factory.mktemp("store"), get_environment("crafter")
    first = small_advice(folder, env, n=24)
    small_advice(folder, env, n=24, seed=1)
    small_model(folder, env, first)
    small_states(folder, env)
    return folder


@pytest.fixture(autouse=True)
def here(root, tmp_path, monkeypatch):
    monkeypatch.setenv("LORE_DATASETS", str(root))
    monkeypatch.chdir(tmp_path)


def said(capsys, *words, code=0):
    assert cli.main(["datasets", *words]) == code
    return capsys.readouterr().out


def test_list_names_every_version_with_kind_and_rows(root, capsys):
    found = json.loads(said(capsys, "list", "--json"))
    assert [(r["ref"].split("#")[0], r["kind"], r["rows"]) for r in found] == [
        ("small@v1", "advice", 24),
        ("small@v2", "advice", 48),
        ("small-model@v1", "advice_model", 0),
        ("states@v1", "states", 64),
    ]
    table = said(capsys, "list")
    assert all(r["ref"] in table for r in found)


def test_an_empty_store_says_how_to_fill_it(tmp_path, capsys):
    assert "lore demo" in said(capsys, "list", "--root", str(tmp_path / "nothing"))


def test_show_tells_counts_cost_and_digests(root, capsys):
    out = said(capsys, "show", "small@v1")
    assert "rows 24" in out and "requests 24" in out and "sha256" in out and "adviser random" in out
    full = json.loads(said(capsys, "show", "small@v1", "--json"))
    assert full["ref"] == str(Store(root).resolve("small@v1"))


def test_verify_reads_every_array(root, capsys):
    assert "every digest holds" in said(capsys, "verify", "small@v2")


def test_a_flipped_byte_is_refused_by_name_with_exit_code_5(tmp_path, capsys):
    small_advice(tmp_path / "other", get_environment("crafter"), n=24)
    chunks = sorted((tmp_path / "other" / "small.icechunk" / "chunks").rglob("*"), key=lambda p: -p.stat().st_size)
    body = bytearray(chunks[0].read_bytes())
    body[len(body) // 2] ^= 0xFF
    chunks[0].write_bytes(bytes(body))
    assert cli.main(["datasets", "verify", "small", "--root", str(tmp_path / "other")]) == 5
    assert capsys.readouterr().err.startswith("lore: corrupt: ")


def test_diff_and_lineage_speak_of_both_versions(root, capsys):
    out = said(capsys, "diff", "small@v1", "small@v2")
    assert "24" in out and "48" in out
    lines = said(capsys, "lineage", "small@v2").splitlines()
    assert lines[0].startswith("small@v2#") and lines[1].startswith("  small@v1#")
    assert said(capsys, "lineage", "small@v2", "--mermaid").startswith("flowchart TD")
    assert said(capsys, "diff", "small@v1", "small@v1").strip()


def test_export_and_import_keep_the_digest(root, tmp_path, capsys):
    assert "advice.h5" in said(capsys, "export", "small@v1", "advice.h5")
    out = said(capsys, "import", "advice.h5", "--dataset", "copy", "--root", str(tmp_path / "elsewhere"))
    digest = str(Store(root).resolve("small@v1")).split("#")[1]
    assert f"copy@v1#{digest}" in out
    assert Store(tmp_path / "elsewhere").names() == ["copy", "copy-model"]


def test_a_label_moves_and_shows(root, capsys):
    said(capsys, "tag", "small@v1", "good")
    said(capsys, "tag", "small@v2", "good")
    assert "labels       good" in said(capsys, "show", "small@good") and "small@v2" in said(
        capsys, "show", "small@good"
    )


def test_gc_keeps_every_version(root, capsys):
    assert "every version kept" in said(capsys, "gc", "small")
    assert Store(root).versions("small") == [1, 2]


def test_what_an_artifact_says_cannot_steer_the_terminal(tmp_path, capsys):
    store = Store(tmp_path / "hostile")
    writer = store.writer("x", "states", environment="crafter", provenance={"adviser": "\x1b[2Jrules"})
    layout = get_environment("crafter").layout
    import numpy as np

    writer.append("rows", state=np.zeros((1, layout.size), np.uint8), episode=[0], step=[0], source=[0])
    writer.commit("\x1b]0;owned\x07 message")
    for verb in (("list",), ("show", "x"), ("lineage", "x")):
        assert "\x1b" not in said(capsys, *verb, "--root", str(store.root))


def test_rollback_is_one_command_and_so_is_its_undoing(tmp_path, capsys):
    env, folder = get_environment("crafter"), str(tmp_path / "own")
    for seed in (0, 1):
        small_advice(folder, env, n=24, seed=seed)
    out = said(capsys, "rollback", "small@v1", "--root", folder)
    assert "goes on from small@v1" in out and "small@v3" in out and "rollback small@v2" in out
    assert "<- rolled back to this one" in said(capsys, "list", "--root", folder)
    found = json.loads(said(capsys, "list", "--json", "--root", folder))
    assert [row["current"] for row in found] == [True, False]
    assert small_advice(folder, env, n=24, seed=2).version == 3
    assert "small@v1" in said(capsys, "lineage", "small@v3", "--root", folder)
    assert "small@v2" not in said(capsys, "lineage", "small@v3", "--root", folder)
    assert "newest version" in said(capsys, "rollback", "small@v3", "--root", folder)
    said(capsys, "rollback", "small", "--root", folder, code=2)
    said(capsys, "rollback", "small@v9", "--root", folder, code=3)


def test_a_program_is_shown_rule_by_rule_and_linted(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LORE_DATASETS", str(tmp_path / "shipped"))
    rules = get_environment("crafter").rules
    shown = said(capsys, "show", "crafter-rules@v2")
    assert f"{len(rules)} rules, digest {rules.digest[:12]}" in shown and "\n  rule 0   " in shown
    assert "+ a program" in said(capsys, "list")
    assert "program: rule" not in said(capsys, "diff", *["crafter-rules@v2"] * 2)
    changed = said(capsys, "diff", "crafter-rules@v1", "crafter-rules@v2")
    assert changed.count("program: rule added") == len(rules)
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"rules": [{"when": {"op": "true"}, "goal": goal} for goal in ("explore", "flee")]}))
    assert cli.main(["skills", "lint", str(file)]) == 0
    assert "rule 1 (flee): can never come first" in capsys.readouterr().out
    file.write_text(json.dumps({"rules": [{"when": {"op": "true"}, "goal": "fly"}]}))
    assert cli.main(["skills", "lint", str(file)]) == 3
