"""The HTML pages: titled sections in one frame that loads nothing and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["Section", "data_block", "filled", "page"]


class Section(NamedTuple):
    """One part of a page.

    Attributes:
        title: heading and entry of the section list; the anchor follows from it.
        html: safe markup, from :func:`filled`.
        scripts: files of this folder that the section needs, each put into the page once.
        styles: likewise for style sheets.
    """

    title: str
    html: Markup
    scripts: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """The section's id in the page: its title in lower case, words joined by dashes."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def filled(template: str, **values: Any) -> Markup:
    """A template of this folder with its values, which are escaped unless they are markup."""
    from markupsafe import Markup

    return Markup(_templates().get_template(template).render(**values))


@cache
def _templates() -> Any:
    import jinja2

    loader = jinja2.PackageLoader("flows", "report")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)


def data_block(name: str, value: Any) -> Markup:
    """JSON for a script of the page to read, in an inert element of the class ``name`` that no text can end."""
    from markupsafe import Markup

    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup('<script type="application/json" class="{}">{}</script>').format(name, Markup(text))


def page(title: str, head: Markup, sections: Iterable[Section]) -> str:
    """The text of a page; ``head`` stands between the title and the sections."""
    from markupsafe import Markup

    kept = list(sections)
    scripts = [_file(name) for name in dict.fromkeys(["page.js", *(s for each in kept for s in each.scripts)])]
    styles = [_file(name) for name in dict.fromkeys(["style.css", *(s for each in kept for s in each.styles)])]
    return _templates().get_template("page.html").render(
        title=title, head=head, sections=kept, css=Markup("\n".join(styles)),
        scripts=[Markup(script) for script in scripts], hashes=Markup(" ".join(map(_hash, scripts))),
    )  # fmt: skip


@cache
def _file(name: str) -> str:
    return resources.files("flows.report").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """The only scripts that the page's policy lets run: foreign text that became markup by a mistake stays dead."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
