"""The connections of an adviser behind HTTP: one per question in flight, kept open, with a cap on what a body may hold.

A pool of httpx looks at all its connections for every request: with 64 of them a question cost 9 ms of CPU time, with a
pool for each 1.9.
"""

from __future__ import annotations

import ssl
import urllib.request
from functools import cache
from typing import Any

__all__ = ["MAX_BODY", "TooLarge", "connections", "trust"]

MAX_BODY = 1_048_576
"""Largest body of an answer in bytes; of one that comes compressed, a 64th."""


class TooLarge(Exception):
    """A body is larger than :data:`MAX_BODY`."""


def connections(http: Any, url: str, direct: bool) -> Any:
    """An asynchronous transport of the library ``http`` (httpx or httpx2) for requests to ``url``.

    Redirects are the client's to refuse. ``direct`` leaves the proxies of the environment aside.
    """
    proxy = None if direct else _proxy(url)
    trusted = trust(http, url)
    one = http.Limits(max_connections=1, max_keepalive_connections=1)

    class Body(http.AsyncByteStream):
        def __init__(self, inner: Any, most: int, lane: Any) -> None:
            self.inner, self.most, self.lane = inner, most, lane

        async def __aiter__(self):
            size = 0
            async for part in self.inner:
                size += len(part)
                if size > self.most:
                    raise TooLarge(f"answer of more than {self.most} bytes")
                yield part

        async def aclose(self) -> None:
            await self.inner.aclose()
            if self.lane is not None:
                free.append(self.lane)
                self.lane = None

    class Lanes(http.AsyncBaseTransport):
        async def handle_async_request(self, request: Any) -> Any:
            if free:
                lane = free.pop()
            else:
                lane = http.AsyncHTTPTransport(verify=trusted, limits=one, proxy=proxy)
                lanes.append(lane)
            try:
                response = await lane.handle_async_request(request)
            except BaseException:
                free.append(lane)
                raise
            encoded = response.headers.get("content-encoding", "identity") != "identity"
            response.stream = Body(response.stream, MAX_BODY // 64 if encoded else MAX_BODY, lane)
            return response

        async def aclose(self) -> None:
            for lane in lanes:
                await lane.aclose()

    lanes: list[Any] = []
    free: list[Any] = []
    return Lanes()


def trust(http: Any, url: str) -> ssl.SSLContext:
    """TLS settings for ``url``: those of ``http``, read once per process; for plain http, trust in nobody."""
    return _verified(http) if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@cache
def _verified(http: Any) -> ssl.SSLContext:
    context = http.create_ssl_context()
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
