"""The list of the reports below a folder, as a page: title, first sentence, date; with a search."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from flows.report.page import Section, filled, page

__all__ = ["index_page", "told_by"]

_HEAD = 128 * 1024
"""Bytes of a report in which its title and verdict stand."""


def told_by(path: Path) -> tuple[str, str]:
    """(title, first sentences) of a report, as plain text; empty where it has none."""
    with path.open("rb") as file:
        text = file.read(_HEAD).decode(errors="replace")
    title = re.search(r"<title>(.*?)</title>", text, re.DOTALL)
    said = re.findall(r'<p class="verdict">(.*?)</p>', text, re.DOTALL)
    return _plain(title[1] if title else ""), " ".join(map(_plain, said))


def _plain(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", markup)).strip()


def index_page(root: Path, paths: Sequence[str]) -> str:
    """The page about the reports at ``paths`` below ``root``, in that order."""
    from markupsafe import Markup

    rows = []
    for name in paths:
        path = root / name
        (title, verdict), about = told_by(path), path.stat()
        rows.append({
            "address": quote(name), "path": name, "title": title or name, "verdict": verdict, "size": about.st_size,
            "seconds": int(about.st_mtime), "written": time.strftime("%Y-%m-%d %H:%M", time.localtime(about.st_mtime)),
        })  # fmt: skip
    return page("LoRe reports", Markup(), [Section("Reports", filled("index.html", rows=rows), ("index.js",))])
