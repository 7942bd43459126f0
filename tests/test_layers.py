"""Who may import whom, and what the learner needs at least."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lore_datasets.environments import get_environment
from lore_datasets.exchange.hdf5 import export_hdf5
from lore_datasets.store.store import Store
from lore_datasets.testing import small_advice

ROOT = Path(__file__).parents[1]

BLOCKER = """
import importlib, pkgutil, sys

ABSENT = set(sys.argv[1].split(","))
PLAIN = {"lore.fast.accelerate", "lore.fast.imagination", "lore.fast.parallel"}  # the rest of lore.fast is numba's


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


sys.meta_path.insert(0, Absent())


def import_all(*packages):
    names = []
    for package in packages:
        root = importlib.import_module(package)
        names += [package, *(m.name for m in pkgutil.walk_packages(root.__path__, package + "."))]
    for name in names:
        if name in PLAIN or not name.startswith("lore.fast."):
            importlib.import_module(name)
    return names

"""
NOT_ON_A_GPU_BOX = (
    "prefect,prefect_dask,dask,distributed,zarr,icechunk,pydantic,fastapi,sqlalchemy,httpx,aiohttp,google,gymnasium,"
    "tensorboard,safetensors,tyro,rich,matplotlib,numba,tensordict,torchrl,pipeline,flows"
)


def python(code: str, *words: str) -> str:
    """Run code in a fresh interpreter; its standard output."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", BLOCKER + code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_contracts_of_pyproject_hold():
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(tool), "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Contracts: " in done.stdout and " 0 broken" in done.stdout


def test_the_learner_imports_with_torch_numpy_h5py_and_crafter_alone():
    code = "names = import_all('lore')\nprint(len(names), not ABSENT & {m.partition('.')[0] for m in sys.modules})"
    count, clean = python(code, NOT_ON_A_GPU_BOX).split()
    assert int(count) > 20 and clean == "True"


def test_the_contract_imports_without_torch_and_reads_an_export_without_a_store(tmp_path):
    ref = small_advice(tmp_path / "store", get_environment("crafter"), n=24)
    export_hdf5(Store(tmp_path / "store"), ref, tmp_path / "advice.h5")
    code = (
        "from lore_datasets.advice import load_advice\n"
        "data = load_advice(sys.argv[2])\n"
        "print(data.ref, len(data.rows), not ABSENT & {m.partition('.')[0] for m in sys.modules})"
    )
    said = python(code, "torch,crafter," + NOT_ON_A_GPU_BOX, str(tmp_path / "advice.h5")).split()
    assert said == [str(ref), "24", "True"]


@pytest.mark.parametrize("package", ["lore_datasets", "pipeline"])
def test_the_offline_phase_imports_without_torch_or_prefect(package):
    code = (
        f"names = import_all({package!r})\nprint(len(names), not ABSENT & {{m.partition('.')[0] for m in sys.modules}})"
    )
    absent = "torch,prefect,dask,distributed,lore,flows,crafter,gymnasium"
    count, clean = python(code, absent).split()
    assert int(count) > 8 and clean == "True"


def test_a_name_in_the_tree_s_top_level_shadows_no_other_package():
    assert not (ROOT / "datasets" / "__init__.py").exists()
