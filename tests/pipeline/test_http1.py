"""The connections of HTTP backends against a server that sends any bytes: framing, limits, reuse."""

import asyncio
import gzip

import httpx
import pytest

from pipeline.llm.http1 import Lane
from pipeline.llm.transport import MAX_BODY, TooLarge, connections, trust

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def ask(*replies, n=None, pause=0.0, size=0, headers=None):
    """What ``n`` requests after each other give, and how many connections they took; ``replies`` are raw bytes."""

    async def run():
        count, left = [0], list(replies)

        async def serve(reader, writer):
            count[0] += 1
            try:
                while left:
                    head = await reader.readuntil(b"\r\n\r\n")
                    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
                    await reader.readexactly(int(fields[b"content-length"]))
                    reply = left.pop(0)
                    step = size or len(reply) or 1
                    for i in range(0, len(reply), step):
                        writer.write(reply[i : i + step])
                        await writer.drain()
                        if size:
                            await asyncio.sleep(0)
                    if b"content-length" not in reply and b"chunked" not in reply:
                        break
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        found = []
        async with httpx.AsyncClient(transport=connections(httpx, url, True), timeout=5.0) as client:
            for _ in range(len(replies) if n is None else n):
                try:
                    reply = await asyncio.wait_for(client.post(url, json={"a": 1}, headers=headers), 20.0)
                    found.append((reply.status_code, reply.content))
                except (httpx.HTTPError, TooLarge) as error:
                    found.append(type(error).__name__)
                await asyncio.sleep(pause)
        server.close()
        await server.wait_closed()
        return found, count[0]

    return asyncio.run(run())


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nt: u\r\n\r\n"


@pytest.mark.parametrize("size", [0, 1, 7])
def test_every_framing_of_a_body_is_read_however_it_arrives_on_one_connection(size):
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    found, connections_made = ask(OK, CHUNKED, interim + OK, b"HTTP/1.1 204 None\r\n\r\n", size=size)
    assert found == [(200, b"ok"), (200, b"abc0123456789"), (200, b"ok"), (204, b"")]
    assert connections_made == 1


def test_a_body_that_ends_with_the_connection_is_whole_and_the_next_request_has_a_new_one():
    assert ask(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", OK) == ([(200, b"until the end"), (200, b"ok")], 2)


@pytest.mark.parametrize("first", [b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
                                   b"HTTP/1.1 200 OK\r\nConnection: Close\r\ncontent-length: 2\r\n\r\nok"])  # fmt: skip
def test_a_connection_that_the_server_will_close_is_not_used_again(first):
    assert ask(first, OK) == ([(200, b"ok"), (200, b"ok")], 2)


def test_bytes_that_nobody_asked_for_are_not_taken_for_the_next_answer():
    found, connections_made = ask(OK + OK.replace(b"ok", b"NO"), OK, pause=0.05)
    assert found == [(200, b"ok"), (200, b"ok")] and connections_made == 2


@pytest.mark.parametrize(
    "reply",
    [
     b"", b"garbage\r\n\r\n", b"HTTP/2 200 OK\r\n\r\n", b"HTTP/1.1 20 OK\r\n\r\n",
     b"HTTP/1.1 200 OK\r\n bad: x\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\nok",
     b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok", b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999\r\n\r\nok",
     b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
     b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
     b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
     b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokok\r\n0\r\n\r\n",
     b"HTTP/1.1 101 Switch\r\n\r\n", b"HTTP/1.1 100 Go on\r\n\r\n" * 20, b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000],
)  # fmt: skip
def test_what_is_no_whole_answer_is_an_error_of_the_library_and_the_next_request_works(reply):
    found, connections_made = ask(reply, OK)
    assert found[0] in ("RemoteProtocolError", "ReadError"), found
    assert found[1] == (200, b"ok") and connections_made == 2


def test_a_cut_body_is_an_error():
    assert ask(b"HTTP/1.1 200 OK\r\nx: y\r\nContent-Length: 9\r\n\r\nok")[0] == ["RemoteProtocolError"]


def test_a_body_over_the_limit_is_left_at_the_limit_and_a_compressed_one_earlier():
    large = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (MAX_BODY + 1) + b"x" * (MAX_BODY + 1)
    packed = gzip.compress(b"x" * 100)
    small = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed) + packed
    found, _ = ask(large, small, OK)
    assert found == ["TooLarge", (200, b"x" * 100), (200, b"ok")]


def test_nobody_listening_is_a_connect_error_and_no_header_can_hold_a_line_break():
    async def run():
        lane = Lane(httpx, trust(httpx, "http://127.0.0.1"))
        with pytest.raises(httpx.ConnectError):
            await lane.handle_async_request(httpx.Request("POST", "http://127.0.0.1:9/v1", content=b"x"))
        with pytest.raises(httpx.LocalProtocolError):
            request = httpx.Request("POST", "http://127.0.0.1:9/v1", content=b"x", headers=[(b"a", b"b\r\nc: d")])
            await lane.handle_async_request(request)
        await lane.aclose()

    asyncio.run(run())


def test_tls_settings_verify_servers_and_those_of_plain_http_trust_nobody():
    verified, none = trust(httpx, "https://a.example"), trust(httpx, "http://127.0.0.1")
    assert verified.check_hostname and verified.verify_mode.name == "CERT_REQUIRED"
    assert none.check_hostname and none.verify_mode.name == "CERT_REQUIRED" and not none.get_ca_certs()
    assert trust(httpx, "https://b.example") is verified
