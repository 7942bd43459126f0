"""Pins and licences of what LoRe is built from."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("supply", ROOT / ".ci" / "supply.py")
supply = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(supply)


def test_the_pins_are_what_pip_resolved_without_lore_itself_and_builds():
    found = [("torch", "2.13.0+cpu"), ("Farama-Notifications", "0.0.6"), ("lore-rl", "0.1.0"), ("aiohttp", "3.14.5")]
    found += [("nvidia-cublas", "13.1"), ("triton", "3.8.0"), ("setuptools", "84.2.1")]
    report = {"install": [{"metadata": {"name": name, "version": version}} for name, version in found]}
    text = supply.locked(json.loads(json.dumps(report)), "# why\nabsl-py==2.5.1\n")
    assert text == "# why\naiohttp==3.14.5\nFarama-Notifications==0.0.6\ntorch==2.13.0\n"


def test_every_dependency_is_pinned_and_states_its_licence():
    needed = supply.closure()
    pinned = {supply.plain(line.split("==")[0]) for line in supply.PINS.read_text().splitlines() if "==" in line}
    assert len(needed) > 60 and needed.keys() - pinned <= {"setuptools", "pip", "wheel"}
    assert [name for name, about in needed.items() if supply.licence(about) == "unknown"] == []
