"""Questions per second of the HTTP backends: 64 in flight against a server on loopback that takes 200 ms an answer.

``python -m benchmarks.http_backends [bare|openai|gemini ...]``: questions of the size of real ones go through a
journal file, as in a round; the server is a process of its own. The ideal is in flight / 0.2 s; the
bare row asks with nothing but sockets, which is what the server and the machine give at that moment.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import spread, write

__all__ = ["main", "measure"]

DELAY_S, IN_FLIGHT, QUESTIONS, ROUNDS = 0.2, 64, 3200, 3
ALL = ("bare", "openai", "gemini")
_ANSWER = '{"ranked": ["explore", "collect_wood"], "confidence": 0.5, "reason": "a tree is in view"}'


async def _serve() -> None:
    """Answer every POST after 200 ms, in the form that its path asks for; print the port."""
    gemini = {"candidates": [{"content": {"role": "model", "parts": [{"text": _ANSWER}]}, "finishReason": "STOP"}]}
    gemini |= {"modelVersion": "loopback", "usageMetadata": {"promptTokenCount": 900, "candidatesTokenCount": 30}}
    openai: dict[str, Any] = {"choices": [{"message": {"content": _ANSWER}, "finish_reason": "stop"}]}
    openai |= {"model": "loopback", "usage": {"prompt_tokens": 900, "completion_tokens": 30}}
    bodies = {b"chat": json.dumps(openai).encode(), b"other": json.dumps(gemini).encode()}

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
                await reader.readexactly(int(fields[b"content-length"]))
                await asyncio.sleep(DELAY_S)
                body = bodies[b"chat" if b"chat/completions" in head[:200] else b"other"]
                start = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                writer.write(start % len(body) + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0, limit=2**20, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _bare(port: int, body: bytes) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)

    async def worker() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(QUESTIONS // IN_FLIGHT):
            writer.write(head + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(answer.rpartition(b": ")[2]))
        writer.close()

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))


def measure(name: str, port: int) -> dict[str, Any]:
    """Questions per second through one backend and a journal file; CPU milliseconds of this process per question."""
    import numpy as np

    from lore_datasets.environments import get_environment
    from lore_datasets.testing import random_states
    from pipeline.config import AskConfig
    from pipeline.llm import backend_from
    from pipeline.llm.base import Prompt
    from pipeline.llm.journal.journal import Journal
    from pipeline.questions.prompts import render

    environment = get_environment("crafter")
    model = render("prior", environment, random_states(environment, 1, np.random.default_rng(0))[0])
    prompts = [Prompt(model.kind, model.system, f"{model.user}\n{i}", model.schema) for i in range(QUESTIONS)]
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder, "journal.sqlite")) as journal:
        if name == "bare":
            began, cpu = time.perf_counter(), time.process_time()
            asyncio.run(_bare(port, json.dumps({"text": model.text}).encode()))
        else:
            url = f"http://127.0.0.1:{port}" + ("/v1" if name == "openai" else "")
            llm = backend_from(AskConfig(backend=name, model="loopback", base_url=url, concurrency=IN_FLIGHT))
            journal.ask(llm, [Prompt("prior", "s", f"warm up {i}") for i in range(8)])
            began, cpu = time.perf_counter(), time.process_time()
            answers = journal.ask(llm, prompts)
            assert all(answer.error is None for answer in answers)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    rate, ideal = QUESTIONS / wall, IN_FLIGHT / DELAY_S
    return {"per_s": rate, "of_ideal": rate / ideal, "wall_s": wall, "cpu_ms_each": 1000 * cpu / QUESTIONS}


def main(names: list[str]) -> int:
    """Run the named backends (all when none is named) and write ``benchmarks/results/http_backends.json``."""
    os.environ.setdefault("GEMINI_API_KEY", "none-is-needed-on-loopback")
    with subprocess.Popen([sys.executable, "-m", __spec__.name, "--serve"], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            rounds = [{name: measure(name, port) for name in names or ALL} for _ in range(ROUNDS)]
        finally:
            server.terminate()
    result = {"in_flight": IN_FLIGHT, "delay_s": DELAY_S, "questions": QUESTIONS, "ideal_per_s": IN_FLIGHT / DELAY_S}
    found = {
        name: {key: spread([each[name][key] for each in rounds]) for key in rounds[0][name]} | {"n": ROUNDS}
        for name in rounds[0]
    }
    print(write("http_backends", {**result, "backends": found}).read_text())
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        asyncio.run(_serve())
    sys.exit(main(sys.argv[1:]))
