"""One run at a time in a workdir: `run.lock`, which is there while a run is at work.

It says whose it is, and is held in three ways. The kernel locks it for as long as the process
lives, so that on the same machine a killed run's is known for that at once. File systems that
several machines share may keep such locks to one of them, or have none: so it is also renewed, and
one that has not been for two minutes is a dead run's. And who knows better may delete it.
"""

import contextlib
import datetime
import getpass
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from spade_jax import hosts
from spade_jax.config import ConfigError
from spade_jax.files import sweep, try_lock, unfinished
from spade_jax.runs.checkpoints import Checkpoints

NAME = "run.lock"
_RENEWED_SECONDS = 15.0
_DEAD_SECONDS = 120.0


@contextlib.contextmanager
def only_run(workdir: Path, checkpoints: Checkpoints, say: Callable[[str], None]) -> Iterator[None]:
    """Holds a workdir, and removes what killed runs left there half written. Of several processes
    the first one does both.

    Args:
      checkpoints: as they were found; another run may have added some since.
      say: told whose lock is taken over.

    Raises:
      ConfigError: another run holds it.
      CheckpointError: another run has held it meanwhile.
    """
    problem: Exception | None = None
    with contextlib.ExitStack() as stack:
        if hosts.is_first():
            try:
                stack.enter_context(_held(workdir / NAME, say))
                checkpoints.require_unchanged()
                for folder in (workdir, workdir / "submission"):
                    sweep(folder)
            except (ConfigError, OSError, RuntimeError) as error:
                problem = error
        if hosts.total(float(problem is not None)):
            raise problem or ConfigError(f"workdir = {str(workdir)!r}: process 0 may not use it")
        yield


@contextlib.contextmanager
def _held(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    descriptor = _take(path, say)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(_RENEWED_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(descriptor)

    thread = threading.Thread(target=renew, name="run.lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if _is_at(path, descriptor):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path: Path, say: Callable[[str], None]) -> int:
    """The open file, which is this run's now."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked = try_lock(descriptor)
            if not _is_at(path, descriptor):
                raise FileNotFoundError  # Its run ended just now.
            owner = _owner(descriptor)
            if locked is False or _may_live(owner, bool(locked), path, say):
                raise ConfigError(
                    f"workdir = {str(path.parent)!r}: is in use by another run ({_name(owner)}); "
                    f"wait for its end, name another workdir, or, if it is surely dead, delete "
                    f"{path}"
                )
            if os.fstat(descriptor).st_size:
                say(f"{path}: taken over from a run that is dead ({_name(owner)}).")
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_myself()).encode(), 0)
            return descriptor
        except BaseException as error:
            os.close(descriptor)
            if not isinstance(error, FileNotFoundError):
                raise


def _may_live(
    owner: dict[str, str] | None, locked: bool, path: Path, say: Callable[[str], None]
) -> bool:
    """Whether the run that wrote a lock renews it, where the kernel cannot tell. Takes two minutes
    at most."""
    if owner is None or (locked and owner["machine"] == _myself()["machine"]):
        return False
    first = path.stat().st_mtime
    # By the clock of the file system, which may not be this machine's.
    probe = unfinished(path)
    probe.touch(exist_ok=False)
    age = probe.stat().st_mtime - first
    probe.unlink(missing_ok=True)
    if age < _DEAD_SECONDS:
        say(f"{path}: waiting to see whether another run is alive ({_name(owner)}).")
    deadline = time.monotonic() + _DEAD_SECONDS - max(age, 0.0)
    while time.monotonic() < deadline:
        time.sleep(0.5)
        # Opened, for a network's file system then asks its server.
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mtime != first:
                return True
    return False


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _owner(descriptor: int) -> dict[str, str] | None:
    """What a lock says; None where that is nothing, or damaged."""
    try:
        found: Any = json.loads(os.pread(descriptor, 1 << 16, 0))
        return {name: str(found[name]) for name in _myself()}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _name(owner: dict[str, str] | None) -> str:
    if owner is None:
        return "which does not say whose"
    return f"of {owner['user']} on {owner['host']}, process {owner['pid']}, since {owner['since']}"


def _myself() -> dict[str, str]:
    """Whose lock this process writes."""
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # A number without a name, as in containers.
        user = str(os.getuid())
    host = socket.gethostname()
    return {
        "user": user,
        "host": host,
        "machine": f"{host} {boot}",
        "pid": str(os.getpid()),
        "since": datetime.datetime.now(datetime.UTC).isoformat(sep=" ", timespec="seconds"),
    }
