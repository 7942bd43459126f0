"""What a machine's environment may change, and what it may not."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flows.lab.lab_api import Api


class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"true")

    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def url():
    with HTTPServer(("127.0.0.1", 0), Health) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/api"
        http.shutdown()


DEAD = {
    "HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9", "all_proxy": "socks5://127.0.0.1:9",
}  # fmt: skip


@pytest.mark.parametrize("variable", [*DEAD, "all"])
@pytest.mark.parametrize("excepted", ["", "example.org"])
def test_a_dead_proxy_is_not_asked_for_loopback_here_or_in_children(variable, excepted, url, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, excepted)
    for name in DEAD if variable == "all" else [variable]:
        monkeypatch.setenv(name, DEAD[name])
    assert Api(url).call("GET", "/health") is True
    if variable == "all":
        code = f"import httpx; assert httpx.get({url + '/health'!r}).json() is True"
        assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
