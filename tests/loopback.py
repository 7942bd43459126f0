"""No test reaches further than this machine: a connection elsewhere is refused, and the test that tried it fails."""

from __future__ import annotations

import ipaddress
import socket

TRIED: list[str] = []
"""Hosts that somebody tried to reach since the list was emptied; code under test may have caught the refusal."""
_PLAIN = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto")}


def is_local(family: int, address: object) -> bool:
    """Is an address of :meth:`socket.socket.connect` one of this machine?"""
    if family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple):
        return True
    host = str(address[0])
    try:
        return host in ("", "localhost") or ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def guard() -> None:
    """Refuse every other address from here on."""

    def guarded(name: str):
        def method(self: socket.socket, *arguments):
            if not is_local(self.family, arguments[-1]):
                TRIED.append(str(arguments[-1][0]))
                raise AssertionError(f"a test tried to reach {arguments[-1][0]}")
            return _PLAIN[name](self, *arguments)

        return method

    for name in _PLAIN:
        setattr(socket.socket, name, guarded(name))
