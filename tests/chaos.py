"""Faults on purpose: the k-th write of Zarr's stores fails, and all after it;
or it ends the process.

In this process, `with fail_at(k): build(...)` raises `Fault`. In another one,
what a power cut does, SIGKILL:

    python tests/chaos.py 7 extend kernel.zarr more.npy    # killed at its 7th write

Writes are counted as the stores see them: metadata, chunks, and chunks deleted.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading

from zarr.storage import FsspecStore, LocalStore, MemoryStore

WRITES = ("set", "set_if_not_exists", "delete", "delete_dir")


class Fault(OSError):  # noqa: N818 - what it is
    """What a write on purpose made to fail raises."""


def fail(key):
    raise Fault(f"no write of {key}: on purpose")


def kill(key):
    """End this process as SIGKILL does."""
    os.kill(os.getpid(), signal.SIGKILL)


class Counter:
    """Counts writes; from number ``at`` on (0: the first) ``act`` comes in place of them."""

    def __init__(self, at=None, act=fail):
        self.at, self.act, self.writes, self.lock = at, act, 0, threading.Lock()

    def write(self, key):
        with self.lock:
            number, self.writes = self.writes, self.writes + 1
            if self.at is not None and number >= self.at:
                self.act(key)


def _counted(method, counter):
    async def write(self, key="", *arguments, **options):
        counter.write(key)
        return await method(self, key, *arguments, **options)

    return write


@contextlib.contextmanager
def fail_at(at=None, act=fail):
    """Writes from number ``at`` on fail (None: they are only counted); gives the `Counter`."""
    counter, undo = Counter(at, act), []
    for store, name in itertools.product((LocalStore, MemoryStore, FsspecStore), WRITES):
        if name in vars(store):
            undo.append((store, name, vars(store)[name]))
            setattr(store, name, _counted(vars(store)[name], counter))
    try:
        yield counter
    finally:
        for store, name, method in undo:
            setattr(store, name, method)


def _call(at, words):
    return [
        sys.executable,
        "-W",
        "ignore",
        __file__,
        "none" if at is None else str(at),
        *map(str, words),
    ]


def command(*words, at=None, folder=None):
    """`ntkcore WORDS…` in a process of its own, killed at its write number ``at`` (None: never)."""
    return subprocess.run(_call(at, words), capture_output=True, text=True, check=False, cwd=folder)


def running(*words, folder=None):
    """The same as a process, to be killed at any moment."""
    return subprocess.Popen(
        _call(None, words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
    )


if __name__ == "__main__":
    from ntkcore.cli import main

    number, *sys.argv[1:] = sys.argv[1:]
    with fail_at(None if number == "none" else int(number), kill):
        main()
