import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from spade_jax.programs import take_large_pages
print(os.getpid())
take_large_pages()
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:])
"""
needs_glibc = pytest.mark.skipif(
    "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}), reason="glibc alone reads this"
)


def lines_of(**environment):
    kept = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-u", "-c", SCRIPT, "a b", "--c"]
    run = subprocess.run(command, env=kept | environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


@needs_glibc
def test_a_program_starts_once_more_with_large_pages_and_the_same_arguments():
    first, second, last = lines_of()
    assert first == second
    assert last == "glibc.malloc.hugetlb=1 ['a b', '--c']"


@needs_glibc
def test_what_someone_has_told_glibc_stays():
    assert lines_of(GLIBC_TUNABLES="")[1:] == [" ['a b', '--c']"]


def test_elsewhere_nothing_is_started_anew(monkeypatch):
    from spade_jax import programs

    monkeypatch.setattr(programs.os, "confstr_names", {}, raising=False)
    monkeypatch.setattr(programs.os, "execv", lambda *_: pytest.fail("started anew"))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    programs.take_large_pages()
    assert "GLIBC_TUNABLES" not in os.environ
