"""The HTML pages: templates over one frame that allows no scripts and loads nothing."""

from __future__ import annotations

from importlib import resources
from typing import Any

__all__ = ["page"]


def page(template: str, title: str, **values: Any) -> str:
    """The text of a page; ``template`` is a file of this folder that extends ``page.html``."""
    import jinja2
    from markupsafe import Markup

    loader = jinja2.PackageLoader("flows", "report")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    css = resources.files("flows.report").joinpath("style.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(title=title, css=Markup(css), **values)
