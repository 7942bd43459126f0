"""One kept connection that speaks HTTP/1.1 and no more of it than a question and its answer need.

A lane carries one request at a time. What does not read as one whole answer ends in an error of the HTTP library and
costs the connection; so do bytes that nobody asked for and five idle seconds. Nothing is ever sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

__all__ = ["Lane"]

IDLE_S = 5.0
"""Seconds after which an idle connection is given up: the server is about to do the same."""
_PART, _MOST_INTERIM, _MOST_TRAILERS = 65536, 8, 64
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: [^\r\n]*)?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")

Headers = list[tuple[bytes, bytes]]


class _Reader(asyncio.StreamReader):
    """Counts what came, so that bytes beyond an answer are seen."""

    fed = 0

    def feed_data(self, data: Any) -> None:
        self.fed += len(data)
        super().feed_data(data)


class Lane:
    """A connection, opened when first needed; ``http`` is the library (httpx or httpx2) that asks through it."""

    def __init__(self, http: Any, trusted: ssl.SSLContext) -> None:
        self.http, self.trusted = http, trusted
        self._reader: _Reader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._place: tuple[str, str, int] | None = None
        self._taken, self._idle_since = 0, 0.0

    async def handle_async_request(self, request: Any) -> Any:
        """Send and read up to the body, whose parts come from the response's stream."""
        content = await request.aread()
        head = _head(request, self.http)
        reader, writer = await self._connected(request)
        try:
            writer.write(head + content)
            await writer.drain()
            status, headers, stays = await self._answer(reader)
            parts = self._parts(reader, status, headers, stays)
        except BaseException as error:
            self._drop()
            raise self._named(error, request) from None
        stream = _stream(self.http)(self, parts, request)
        return self.http.Response(status, headers=headers, stream=stream, extensions={"http_version": b"HTTP/1.1"})

    async def aclose(self) -> None:
        """Close the connection in good order."""
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), 1.0)

    async def _connected(self, request: Any) -> tuple[_Reader, asyncio.StreamWriter]:
        url = request.url
        place = (url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))
        reader, writer = self._reader, self._writer
        if reader is not None and writer is not None:
            idle = time.monotonic() - self._idle_since
            good = place == self._place and idle < IDLE_S and reader.fed == self._taken
            if good and not reader.at_eof() and not writer.is_closing():
                return reader, writer
            self._drop()
        loop = asyncio.get_running_loop()
        reader = _Reader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        secure = {"ssl": self.trusted, "server_hostname": place[1]} if place[0] == "https" else {}
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, place[1], place[2], happy_eyeballs_delay=0.25, **secure
            )
        except (OSError, ValueError) as error:
            raise self.http.ConnectError(type(error).__name__, request=request) from None
        self._reader, self._writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)
        self._place, self._taken = place, 0
        return self._reader, self._writer

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    def _named(self, error: BaseException, request: Any) -> BaseException:
        if isinstance(error, OSError):
            return self.http.ReadError(type(error).__name__, request=request)
        if isinstance(error, (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError)):
            return self.http.RemoteProtocolError(f"no whole answer: {type(error).__name__}", request=request)
        return error

    async def _until(self, reader: _Reader, mark: bytes) -> bytes:
        found = await reader.readuntil(mark)
        self._taken += len(found)
        return found

    async def _answer(self, reader: _Reader) -> tuple[int, Headers, bool]:
        """Status, headers, and whether the connection stays; interim answers (1xx) are passed over."""
        for _ in range(_MOST_INTERIM):
            first, *lines = (await self._until(reader, b"\r\n\r\n"))[:-4].split(b"\r\n")
            status = _STATUS.fullmatch(first)
            if status is None:
                raise ValueError("no status line")
            code, headers = int(status[2]), []
            for line in lines:
                name, colon, value = line.partition(b":")
                if not colon or not _NAME.fullmatch(name) or b"\0" in value or b"\n" in value or b"\r" in value:
                    raise ValueError("no header")
                headers.append((name, value.strip(b" \t")))
            if code >= 200:
                return code, headers, status[1] == b"1" and b"close" not in _values(headers, b"connection")
            if code == 101:
                break
        raise ValueError("no final answer")

    async def _parts(self, reader: _Reader, status: int, headers: Headers, stays: bool) -> AsyncIterator[bytes]:
        """The body as it comes; at its end the lane is free again, or closed where the server will close it."""
        coding, lengths = _values(headers, b"transfer-encoding"), set(_values(headers, b"content-length"))
        if coding:
            if coding != [b"chunked"] or lengths:
                raise ValueError("unknown length")
            async for part in self._chunks(reader):
                yield part
        elif lengths or status in (204, 304):
            left = 0 if status in (204, 304) else _length(lengths)
            while left:
                part = await self._some(reader, left)
                left -= len(part)
                yield part
        else:
            stays = False
            while part := await reader.read(_PART):
                yield part
        self._idle_since = time.monotonic()
        if not stays:
            self._drop()

    async def _some(self, reader: _Reader, most: int) -> bytes:
        part = await reader.read(min(most, _PART))
        if not part:
            raise asyncio.IncompleteReadError(b"", most)
        self._taken += len(part)
        return part

    async def _chunks(self, reader: _Reader) -> AsyncIterator[bytes]:
        while True:
            line = _SIZE.fullmatch(await self._until(reader, b"\r\n"))
            if line is None:
                raise ValueError("no size of a chunk")
            left = int(line[1], 16)
            if not left:
                break
            while left:
                part = await self._some(reader, left)
                left -= len(part)
                yield part
            if await self._until(reader, b"\r\n") != b"\r\n":
                raise ValueError("a chunk is longer than it says")
        for _ in range(_MOST_TRAILERS):
            if await self._until(reader, b"\r\n") == b"\r\n":
                return
        raise ValueError("too many trailers")


def _values(headers: Headers, name: bytes) -> list[bytes]:
    """The comma-separated values of a header, in lower case."""
    found = [value for key, value in headers if key.lower() == name]
    return [part.strip(b" \t").lower() for value in found for part in value.split(b",")]


def _length(lengths: set[bytes]) -> int:
    (text,) = lengths if len(lengths) == 1 else (b"",)
    if not text.isdigit() or len(text) > 12:
        raise ValueError("unknown length")
    return int(text)


def _head(request: Any, http: Any) -> bytes:
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%s: %s" % pair for pair in request.headers.raw]
    if "transfer-encoding" in request.headers or any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines):
        raise http.LocalProtocolError("a request that is not sent as it is", request=request)
    return b"\r\n".join(lines) + b"\r\n\r\n"


@cache
def _stream(http: Any) -> Any:
    """The class of a body as a stream of the library; one that is closed before its end costs the connection."""

    class Stream(http.AsyncByteStream):
        def __init__(self, lane: Lane, parts: AsyncIterator[bytes], request: Any) -> None:
            self.lane, self.parts, self.request, self.whole = lane, parts, request, False

        async def __aiter__(self):
            try:
                async for part in self.parts:
                    yield part
                self.whole = True
            except BaseException as error:
                self.lane._drop()
                raise self.lane._named(error, self.request) from None

        async def aclose(self) -> None:
            if not self.whole:
                self.lane._drop()

    return Stream
