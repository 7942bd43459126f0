"""What mkdocs does besides reading docs/: decisions, pages of other folders, the table of commands, roles."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "reference/format.md": "datasets/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}
"""Page of the site -> file that it is."""
_ROLE = re.compile(r":(?:class|data|func|meth|mod):(<code>)~?(?:[\w.]+\.)?")


def on_config(config: Any) -> Any:
    """Enter every decision, before the last section."""
    decisions = sorted(path.name for path in (ROOT / "docs" / "adr").glob("*.md"))
    config.nav.insert(-1, {"Decisions": [f"adr/{name}" for name in decisions]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside docs/."""
    for page, source in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put the table of commands in its place, and lead to pages of other folders where the site has them."""
    for target, source in ELSEWHERE.items():
        here = posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")
        markdown = re.sub(rf"\]\((?:\.\./)+{re.escape(source)}\)", f"]({here})", markdown)
    return markdown.replace("<!-- commands -->", commands()) if "<!-- commands -->" in markdown else markdown


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name things by role (``:func:`name```): show the name alone."""
    return _ROLE.sub(r"\1", html).replace("<p>::</p>\n", "")


def commands() -> str:
    """Every verb of ``lore`` with what it does, as Markdown."""
    from flows.cli.main import GROUPS, VERBS

    rows = [f"| `lore {verb}` | {about} |" for verb, (_, about) in VERBS.items()]
    parts = ["\n".join(["| command | what it does |", "|---|---|", *rows])]
    for group, (about, verbs) in GROUPS.items():
        rows = [f"| `lore {group} {verb}` | {told} |" for verb, (_, told) in verbs.items()]
        parts.append(
            "\n".join(
                [
                    f"## lore {group}",
                    f"{about[0].upper()}{about[1:]}.",
                    "",
                    "| command | what it does |",
                    "|---|---|",
                    *rows,
                ]
            )
        )
    return "\n\n".join(parts)
