"""The connections of an adviser behind HTTP: one per question in flight, kept open, with a cap on what a body may hold.

They are aiohttp's, whose parser is compiled: a question costs half of the CPU time that it costs over httpx, whose pool
looks at all its connections for every request.
"""

from __future__ import annotations

import os
import ssl
import urllib.request
from functools import cache
from typing import TYPE_CHECKING, Any

from lore_datasets.json_text import parsed

if TYPE_CHECKING:
    import aiohttp

__all__ = ["MAX_BODY", "TooLarge", "connections", "trust"]

MAX_BODY = 1_048_576
"""Largest body of an answer in bytes, also of one that came compressed."""


class TooLarge(Exception):
    """A body is larger than :data:`MAX_BODY`."""


def connections(url: str, direct: bool) -> aiohttp.ClientSession:
    """A session of aiohttp for requests to ``url``, made in an event loop; it keeps no cookies and no time limit.

    Redirects are the request's to refuse. ``direct`` leaves the proxies of the environment aside.
    """
    import aiohttp

    class Capped(aiohttp.ClientResponse):
        async def read(self) -> bytes:
            if self._body is None:
                parts, size = [], 0
                async for part in self.content.iter_any():
                    size += len(part)
                    if size > MAX_BODY:
                        self.close()
                        raise TooLarge(f"answer of more than {MAX_BODY} bytes")
                    parts.append(part)
                self._body = b"".join(parts)
            return self._body

        async def json(self, **_: Any) -> Any:  # the SDK's look at an error: of one that does not read it has the text
            try:
                return parsed(await self.read())
            except ValueError:
                raise aiohttp.ContentTypeError(self.request_info, self.history, status=self.status) from None

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=trust(url)),
        headers={"Accept-Encoding": "identity"},  # a proxy is shown them: keys belong into those of the requests
        timeout=aiohttp.ClientTimeout(total=None),
        response_class=Capped,
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=None if direct else _proxy(url),
    )


def trust(url: str) -> ssl.SSLContext:
    """TLS settings for ``url``, read once per process; for plain http, trust in nobody."""
    return _verified() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@cache
def _verified() -> ssl.SSLContext:
    import certifi

    authorities, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    context = ssl.create_default_context(cafile=authorities or (None if folder else certifi.where()), capath=folder)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for ``url``."""
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0].partition(":")[0]
    if urllib.request.proxy_bypass(host):
        return None
    found = urllib.request.getproxies()
    return found.get(scheme) or found.get("all")
