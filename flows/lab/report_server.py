"""The HTML reports below a folder, on loopback: an index and the pages, nothing else of the folder.

Everybody on the machine may read them. A web page from elsewhere may not: a name of its own that it points at loopback
is refused by the ``Host`` header, and no answer allows another origin.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flows.report.index import index_page

__all__ = ["pages", "server"]

_NAMES = ("report.html", "ablation.html")
_LIMIT = 64 * 2**20
_HOSTS = ("127.0.0.1", "localhost")
"""Host names under which a browser may ask, whatever the port: that may be the end of a tunnel."""


def pages(root: Path) -> list[str]:
    """Paths of the reports below ``root``, relative to it, newest first; links that lead out of it are left out."""
    inside = root.resolve()
    named = [*(p for name in _NAMES for p in root.rglob(name)), *root.glob("reports/*.html")]
    found = [p for p in dict.fromkeys(named) if p.is_file() and p.resolve().is_relative_to(inside)]
    found.sort(key=lambda p: p.stat().st_mtime, reverse=True)
    return [p.relative_to(root).as_posix() for p in found]


def server(root: Path, port: int) -> ThreadingHTTPServer:
    """A server of :func:`pages` on 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Host", "").partition(":")[0].lower() not in _HOSTS:
                return self._send(403, b"<!doctype html><title>refused</title><p>unknown host name")
            wanted = unquote(urlsplit(self.path).path).lstrip("/")
            known = pages(root)
            if wanted in known:
                return self._send(200, (root / wanted).read_bytes()[:_LIMIT])
            if wanted == "":
                return self._send(200, index_page(root, known).encode())
            return self._send(404, b"<!doctype html><title>none</title><p>no such report</p>")

        def _send(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    server(Path(sys.argv[1]), int(sys.argv[2])).serve_forever()
