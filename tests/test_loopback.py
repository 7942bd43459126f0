"""The guard of all tests: nobody reaches further than this machine, and nobody hides that it was tried."""

import asyncio
import socket

import pytest

from tests import loopback


def tried() -> list[str]:
    """What was tried, and is forgotten with this: it was meant."""
    hosts = list(loopback.TRIED)
    loopback.TRIED.clear()
    return hosts


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "127.evil.example", "0.0.0.0", "::ffff:192.0.2.1"])
def test_an_address_elsewhere_is_refused_and_remembered(host):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as outside:
        for connect in (outside.connect, outside.connect_ex):
            with pytest.raises(AssertionError, match="tried to reach"):
                connect((host, 9))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside, pytest.raises(AssertionError):
        outside.sendto(b"x", ("192.0.2.1", 9))
    assert [host, host, "192.0.2.1"] == tried()


def test_the_loop_of_asyncio_is_guarded_too():
    async def reach():
        await asyncio.open_connection("192.0.2.1", 9)

    with pytest.raises(AssertionError):
        asyncio.run(reach())
    assert tried()


def test_this_machine_can_be_reached():
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_UNIX, "")):
        assert loopback.is_local(family, (host, 1) if host else b"/run/x")
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
    assert tried() == []


def test_a_test_that_swallows_the_refusal_fails_all_the_same(pytestconfig):
    """The hook of conftest turns a passed report into a failed one."""
    plugins = pytestconfig.pluginmanager.get_plugins()
    conftest = next(p for p in plugins if getattr(p, "loopback", None) is loopback)
    report = type("Report", (), {"passed": True, "outcome": "passed", "longrepr": None})()
    item = type("Item", (), {"nodeid": "test_x.py::test_x"})()
    loopback.TRIED.append("192.0.2.1")
    hook = conftest.pytest_runtest_makereport(item)
    next(hook)
    with pytest.raises(StopIteration):
        hook.send(report)
    assert report.outcome == "failed" and "tried to reach 192.0.2.1" in report.longrepr
