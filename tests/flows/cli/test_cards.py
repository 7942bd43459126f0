"""Dataset cards: front matter, counts, cost and loading code that runs; Croissant that names every array."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from flows.cli import main as cli
from lore_datasets.environments import get_environment
from lore_datasets.exchange.card import markdown
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice, small_model, small_states


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder, env = tmp_path_factory.mktemp("store"), get_environment("crafter")
    small_model(folder, env, small_advice(folder, env, n=24))
    small_states(folder, env)
    return folder


def said(capsys, root, *words):
    assert cli.main(["datasets", "show", *words, "--root", str(root)]) == 0
    return capsys.readouterr().out


def test_the_markdown_card_has_front_matter_counts_cost_and_digest(root, capsys):
    out = said(capsys, root, "small", "--card", "md")
    head, _, body = out.removeprefix("---\n").partition("\n---\n")
    front = {key: json.loads(value) for key, value in (line.split(": ", 1) for line in head.splitlines())}
    assert front["license"] == "mit" and front["size_categories"] == ["n<1K"] and "crafter" in front["tags"]
    digest = Store(root).resolve("small").digest
    assert f"| sha256 | {digest} |" in body and "| requests | 24 |" in body and "| rejected.malformed | 1 |" in body
    assert "| adviser | random |" in body and "round-000/logits" in body
    assert '"apache-2.0"' in said(capsys, root, "small", "--card", "md", "--license", "apache-2.0")
    assert "by_source" not in said(capsys, root, "states", "--card", "md")


def test_the_loading_code_of_the_card_runs(root, tmp_path, capsys):
    out = said(capsys, root, "small@v1", "--card", "md")
    code = dict(re.findall(r"```python file=(\w+)\n(.*?)```", out, flags=re.S))
    assert set(code) == {"zarr", "xarray", "dask", "h5py"}
    assert cli.main(["datasets", "export", "small@v1", str(root / "small.h5"), "--root", str(root)]) == 0
    program = "\n".join(code[name] for name in ("zarr", "xarray", "dask"))
    program += "\nprint(array.shape, lazy.sum().compute() == array[:].sum() == rows.logits.sum().values)\n"
    program += f"{code['h5py']}\nprint(array.shape)"
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    width = 17 + len(get_environment("crafter").skills)
    assert done.stdout.splitlines() == [f"(24, {width}) True", f"(24, {width})"]


def test_croissant_names_every_array_of_a_round_and_the_export_with_its_digest(root, tmp_path, capsys):
    card = json.loads(said(capsys, root, "small", "--card", "croissant"))
    assert card["conformsTo"] == "http://mlcommons.org/croissant/1.1" and card["@type"] == "sc:Dataset"
    assert {"name", "description", "license", "url", "datePublished", "creator", "version"} <= set(card)
    [records] = card["recordSet"]
    named = {field["@id"]: field for field in records["field"]}
    arrays = Store(root).manifest("small").arrays
    assert set(named) == {path for path in arrays if path.count("/") == 1}
    assert named["round-000/logits"]["arrayShape"] == str(arrays["round-000/logits"].shape[1])
    export = tmp_path / "small.h5"
    assert cli.main(["datasets", "export", "small", str(export), "--root", str(root)]) == 0
    capsys.readouterr()
    card = json.loads(said(capsys, root, "small", "--card", "croissant", "--file", str(export)))
    [file] = card["distribution"]
    assert file["sha256"] == hashlib.sha256(export.read_bytes()).hexdigest() and file["contentUrl"] == "small.h5"


def test_the_card_tells_coverage_and_agreement_by_who_visited_the_states(root):
    store = Store(root)
    figures = {"states": 1200, "row_coverage": 0.25, "goal_coverage": 0.5, "held_out": 30, "model_agreement": 0.8}
    model = store.manifest("small-model")
    provenance = {"model_agreement": 0.75, "by_source": {"agent": figures, "ran|dom": {"states": 3}}}
    card = markdown(store.manifest("small"), model=replace(model, provenance=provenance))
    assert "| agent | 1,200 | 25 % | 50 % | 30 | - | 80 % | - |" in card
    assert "| ran&#124;dom | 3 | - | - | - | - | - | - |" in card and "| model_agreement | 0.75 |" in card
    assert "by_source" not in card


def test_what_an_artifact_says_cannot_write_markup_into_its_card(tmp_path):
    import numpy as np

    store = Store(tmp_path)
    hostile = "<script>alert(1)</script> | [x](http://y) \x1b[2J"
    writer = store.writer("x", "states", environment="crafter", provenance={"adviser": hostile})
    layout = get_environment("crafter").layout
    writer.append("rows", state=np.zeros((1, layout.size), np.uint8), episode=[0], step=[0], source=[0])
    card = markdown(store.manifest(writer.commit(hostile)))
    assert "<script" not in card and "](" not in card and "\x1b" not in card
