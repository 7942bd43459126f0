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


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("excepted", ["", "example.org"])
def test_a_dead_proxy_is_not_asked_for_loopback_here_or_in_children(variable, excepted, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, excepted)
    monkeypatch.setenv(variable, "socks5://127.0.0.1:9" if "all" in variable.lower() else "http://127.0.0.1:9")
    with HTTPServer(("127.0.0.1", 0), Health) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{http.server_port}/api"
        assert Api(url).call("GET", "/health") is True
        code = f"import httpx; assert httpx.get({url + '/health'!r}).json() is True"
        assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
        http.shutdown()
