"""The notebook of the examples runs from the top in a kernel of its own, and a kernel that is interrupted goes on."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "03_notebook.ipynb"
SHORT = "FOLDER, STATES, LIVES, AREA, STEPS, EPISODES = 'runs/notebook', 20, 1, 24, 60, 1"


@pytest.fixture
def kernel(own_datasets, tmp_path, monkeypatch):
    """Gives a client that executes a notebook in a kernel with this checkout's code and folders of the test's own."""
    root = NOTEBOOK.parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(root / "datasets")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    return lambda notebook: NotebookClient(notebook, timeout=170, resources={"metadata": {"path": str(tmp_path)}})


def output(cell) -> str:
    """What a cell shows as text: streams, results, bars."""
    return "".join(o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in cell.outputs)


def test_the_notebook_is_stored_without_outputs_and_its_parameters_are_one_cell():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in notebook.cells)
    [parameters] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    names = {line.split("=")[0].strip() for line in parameters.source.splitlines()}
    assert {name for each in names for name in each.split(", ")} == set(SHORT.split(" = ")[0].split(", "))


@pytest.mark.slow
def test_the_notebook_runs_from_the_top(kernel, tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source = SHORT
        quick = 'preset="smoke", batch_size=32, sequence_length=8, **{"env.length": 60}'
        cell.source = cell.source.replace('preset="smoke"', quick)
    kernel(notebook).execute()
    said = "\n".join(output(cell) for cell in notebook.cells if cell.cell_type == "code")
    assert "play  100 %  20/20" in said and "train  100 %  60/60" in said  # bars that changed in place
    assert "Figure(episodes=1" in said and "xarray.Dataset" in said and "IFrame" in said
    assert (tmp_path / "runs" / "notebook" / "report.html").exists()


@pytest.mark.slow
def test_a_kernel_that_is_interrupted_says_in_one_line_what_is_kept(kernel, own_datasets):
    cells = [
        "import lore_rl, os, signal, threading\nlore_rl.collect('other', budget=10, max_steps=30)  # all is loaded now",
        "threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()\nlore_rl.collect(budget=20_000)",
        "lore_rl.collect('other', budget=10, max_steps=30)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.cells[1].metadata["tags"] = ["raises-exception"]
    kernel(notebook).execute()
    [error] = [o for o in notebook.cells[1].outputs if o.output_type == "error"]
    assert error.ename == "KeyboardInterrupt" and "kept: the states found so far" in error.evalue
    assert (own_datasets / "states.icechunk").exists() and "name='other', version=1" in output(notebook.cells[2])
