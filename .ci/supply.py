"""What LoRe is built from: ``make lock`` renews the pins in constraints.txt, ``make licences`` lists every licence."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PINS = ROOT / "constraints.txt"
BUILDS = ("nvidia-", "cuda-", "triton", "setuptools", "lore-rl")
"""Beginnings of names that are not pinned: what one build of torch brings, what builds wheels, and LoRe itself."""

UNSTATED = {"mlcroissant": "Apache-2.0 (its repository says so, the wheel says nothing)"}
"""Licences of distributions whose wheels state none."""


def plain(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(report: Mapping[str, Any], before: str) -> str:
    """constraints.txt from pip's installation report: comments of before, then one exact version a line, sorted."""
    comments = [line for line in before.splitlines() if line.startswith("#")]
    found = [(each["metadata"]["name"], each["metadata"]["version"].partition("+")[0]) for each in report["install"]]
    pins = sorted(
        (f"{name}=={version}" for name, version in found if not plain(name).startswith(BUILDS)), key=str.lower
    )
    return "\n".join([*comments, *pins]) + "\n"


def lock() -> int:
    """Resolve everything anew, without installing it, and say what changed."""
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    extras = ",".join(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    done = subprocess.run([*words, f".[{extras}]"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    before = PINS.read_text()
    after = locked(json.loads(done.stdout), before)
    old, new = (dict(line.split("==") for line in text.splitlines() if "==" in line) for text in (before, after))
    for name in sorted(old.keys() | new.keys(), key=str.lower):
        if old.get(name) != new.get(name):
            print(f"{name}: {old.get(name, 'new')} -> {new.get(name, 'gone')}")
    PINS.write_text(after)
    print(f"{len(new)} pins in {PINS.name}; next: make setup test")
    return 0


def closure() -> dict[str, metadata.Distribution]:
    """Every installed distribution that pyproject.toml with all its extras leads to, by its plain name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [*project["dependencies"], *(text for more in project["optional-dependencies"].values() for text in more)]
    found: dict[str, metadata.Distribution] = {}
    while waiting:
        key = plain(re.split(r"[\s\[;<>=!~(]", waiting.pop(), maxsplit=1)[0])
        if key in found:
            continue
        try:
            found[key] = metadata.distribution(key)
        except metadata.PackageNotFoundError:  # of another system
            continue
        waiting += [text for text in found[key].requires or () if "extra ==" not in text]
    return found


def licence(about: metadata.Distribution) -> str:
    """The licence that a distribution states, in its own words or by its classifier; "unknown" otherwise."""
    fields = about.metadata
    stated = fields.get("License-Expression") or (fields.get("License") or "").strip().splitlines()
    text = stated if isinstance(stated, str) else stated[0] if stated and len(stated[0]) < 80 else ""
    classified = [c.rpartition(" :: ")[2] for c in fields.get_all("Classifier") or () if c.startswith("License ::")]
    text = "" if text.upper() == "UNKNOWN" else text
    text = text or UNSTATED.get(plain(fields["Name"]), "")
    return text or ", ".join(classified) or ("see its licence file" if fields.get("License-File") else "unknown")


def licences() -> int:
    """One line each, sorted by licence; exit code 1 when somebody states none."""
    rows = sorted((licence(about), name, about.version) for name, about in closure().items())
    for said, name, version in rows:
        print(f"{said:<45} {name} {version}")
    unknown = [name for said, name, _ in rows if said == "unknown"]
    print(
        f"\n{len(rows)} distributions, {len({row[0] for row in rows})} licences"
        + (f"; unknown: {unknown}" * bool(unknown))
    )
    return bool(unknown)


if __name__ == "__main__":
    sys.exit({"lock": lock, "licences": licences}[sys.argv[1]]())
