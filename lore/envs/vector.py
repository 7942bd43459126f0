"""Several environments stepped together: in this process (the default), or one process each with frames in shared
memory.

Both share one rule: after a step with ``is_last`` the next ``step`` ignores that environment's action and returns the
reset frame (``is_first``, reward 0), so that the terminal frame is never lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from multiprocessing import get_context, shared_memory
from typing import Any

import numpy as np

from lore.envs.base import Env, Step
from lore_datasets.errors import BadInput, LoreError, UsageError, shown

__all__ = ["ProcessVectorEnv", "VectorEnv", "WorkerDied"]


class WorkerDied(LoreError):
    """An environment's process ended or failed; its number and last words are in the message."""

    kind = "worker"


def _advance(env: Env, ended: bool, action: int) -> Step:
    return env.reset() if ended else env.step(action)


class VectorEnv:
    """Environments in this process, one after the other; deterministic and, with a fast game, the fastest on few
    cores.
    """

    def __init__(self, make_fns: Sequence[Callable[[], Env]]) -> None:
        if not make_fns:
            raise BadInput("a vector of no environments")
        self.envs = [make() for make in make_fns]
        self.spec = self.envs[0].spec
        self._ended: list[bool] | None = None

    def __len__(self) -> int:
        return len(self.envs)

    def reset(self) -> list[Step]:
        """Begin an episode everywhere."""
        self._ended = [False] * len(self.envs)
        return [env.reset() for env in self.envs]

    def step(self, actions: Sequence[int] | np.ndarray) -> list[Step]:
        """One step each; ``actions`` int[N]."""
        actions, ended = _checked(actions, len(self.envs), self._ended)
        steps = [_advance(*given) for given in zip(self.envs, ended, actions, strict=True)]
        self._ended = [step.is_last for step in steps]
        return steps

    def state_dict(self) -> dict[str, Any]:
        """Every environment's snapshot and which of them stand at their end, as JSON values."""
        if self._ended is None:
            raise UsageError("the vector has not been reset")
        return {"ended": list(self._ended), "envs": [env.state_dict() for env in self.envs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken."""
        _check_count(state, len(self.envs))
        for env, saved in zip(self.envs, state["envs"], strict=True):
            env.load_state_dict(saved)
        self._ended = [bool(flag) for flag in state["ended"]]

    def close(self) -> None:
        """Nothing to give back; here so that both vectors are used alike."""


def _checked(actions: Sequence[int] | np.ndarray, count: int, ended: list[bool] | None) -> tuple[list[int], list[bool]]:
    if ended is None:
        raise UsageError("the vector has not been reset, or has been closed")
    actions = [int(a) for a in actions]
    if len(actions) != count:
        raise BadInput(f"{len(actions)} actions for {count} environments")
    return actions, ended


def _check_count(state: dict[str, Any], count: int) -> None:
    if len(state["envs"]) != count or len(state["ended"]) != count:
        raise BadInput(f"snapshot of {len(state['envs'])} environments, this vector has {count}")


def _work(pipe: Any, make: Callable[[], Env], memory: str) -> None:
    """One environment's process: answers requests until the pipe closes."""
    shared = shared_memory.SharedMemory(name=memory)
    try:
        env = make()
        pipe.send(("spec", env.spec.name))
        while True:
            what, value = pipe.recv()
            if what == "close":
                break
            if what == "save":
                pipe.send(("state", env.state_dict()))
                continue
            if what == "load":
                env.load_state_dict(value)
                pipe.send(("done", None))
                continue
            step = env.reset() if what == "reset" else env.step(value)
            shape = None if step.image is None else step.image.shape
            if shape is not None:
                np.ndarray(shape, np.uint8, shared.buf)[:] = step.image
            pipe.send(("step", (step._replace(image=None), shape)))
    except (EOFError, KeyboardInterrupt):
        pass
    except Exception as error:  # the parent raises it by name
        with contextlib.suppress(BrokenPipeError, OSError):
            pipe.send(("error", f"{type(error).__name__}: {error}"))
    finally:
        shared.close()


class ProcessVectorEnv:
    """The same in one spawned process each; frames (up to ``frame_bytes``) cross in shared memory. Use as a context
    manager.
    """

    def __init__(
        self, make_fns: Sequence[Callable[[], Env]], frame_bytes: int = 64 * 64 * 3, timeout_s: float = 120.0
    ) -> None:
        if not make_fns:
            raise BadInput("a vector of no environments")
        self._timeout = timeout_s
        self._ended: list[bool] | None = None
        self._memory: list[shared_memory.SharedMemory] = []
        self._pipes: list[Any] = []
        self._workers: list[Any] = []
        context = get_context("spawn")
        try:
            for make in make_fns:
                memory = shared_memory.SharedMemory(create=True, size=frame_bytes)
                self._memory.append(memory)
                here, there = context.Pipe()
                worker = context.Process(target=_work, args=(there, make, memory.name), daemon=True)
                worker.start()
                there.close()
                self._pipes.append(here)
                self._workers.append(worker)
            names = [self._receive(i, "spec") for i in range(len(make_fns))]
        except BaseException:
            self.close()
            raise
        from lore_datasets.environments import get_environment

        self.spec = get_environment(names[0])

    def __len__(self) -> int:
        return len(self._workers)

    def __enter__(self) -> ProcessVectorEnv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(self) -> list[Step]:
        """Begin an episode everywhere."""
        if not self._workers:
            raise UsageError("the vector has been closed")
        self._ended = [False] * len(self)
        for i in range(len(self)):
            self._send(i, "reset")
        return [self._step_of(i) for i in range(len(self))]

    def step(self, actions: Sequence[int] | np.ndarray) -> list[Step]:
        """One step each, in parallel; WorkerDied names the environment that failed."""
        actions, ended = _checked(actions, len(self), self._ended)
        for i, action in enumerate(actions):
            self._send(i, "reset" if ended[i] else "step", action)
        steps = [self._step_of(i) for i in range(len(self))]
        self._ended = [step.is_last for step in steps]
        return steps

    def state_dict(self) -> dict[str, Any]:
        """As :meth:`VectorEnv.state_dict`; the two read each other's snapshots."""
        if self._ended is None:
            raise UsageError("the vector has not been reset")
        for i in range(len(self)):
            self._send(i, "save")
        return {"ended": list(self._ended), "envs": [self._receive(i, "state") for i in range(len(self))]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where :meth:`state_dict` was taken."""
        _check_count(state, len(self))
        for i, saved in enumerate(state["envs"]):
            self._send(i, "load", saved)
        for i in range(len(self)):
            self._receive(i, "done")
        self._ended = [bool(flag) for flag in state["ended"]]

    def close(self) -> None:
        """End the processes and give the shared memory back; may be called again."""
        for pipe in self._pipes:
            with contextlib.suppress(BrokenPipeError, OSError):
                pipe.send(("close", None))
            pipe.close()
        for worker in self._workers:
            worker.join(5)
            if worker.is_alive():
                worker.kill()
                worker.join()
        for memory in self._memory:
            memory.close()
            memory.unlink()
        self._pipes, self._workers, self._memory, self._ended = [], [], [], None

    def _send(self, i: int, what: str, value: Any = None) -> None:
        try:
            self._pipes[i].send((what, value))
        except (BrokenPipeError, ConnectionResetError):
            self._receive(i, "")  # reads the worker's last words, or raises for it

    def _receive(self, i: int, expected: str) -> Any:
        try:
            if not self._pipes[i].poll(self._timeout):
                raise WorkerDied(
                    f"environment {i} did not answer within {self._timeout:g} s", hint="the vector must be closed"
                )
            what, value = self._pipes[i].recv()
        except (EOFError, ConnectionResetError):
            self._workers[i].join(5)
            code = self._workers[i].exitcode
            raise WorkerDied(
                f"environment {i}: its process ended with code {code}",
                hint="close the vector; resume from a checkpoint",
            ) from None
        if what != expected:
            raise WorkerDied(
                f"environment {i} failed: {shown(value, 300)}", hint="close the vector; resume from a checkpoint"
            )
        return value

    def _step_of(self, i: int) -> Step:
        step, shape = self._receive(i, "step")
        if shape is None:
            return step
        frame = np.ndarray(shape, np.uint8, self._memory[i].buf)
        return step._replace(image=frame.copy())
