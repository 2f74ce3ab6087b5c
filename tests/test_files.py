"""Files that appear as a whole, and those that a person names."""

import errno
import os
import stat
import subprocess
import sys
import threading

import pytest

from spade_jax.config import ConfigError
from spade_jax.files import atomic_write, check_output, open_output, sweep, unfinished


def write(path, text="new\n"):
    check_output(path, "--output")
    with open_output(path) as file:
        file.write(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_when_the_new_one_is_whole(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old\n")
    path.chmod(0o640)
    with open_output(path) as file:
        file.write("new\n")
        file.flush()
        assert path.read_text() == "old\n"
    assert path.read_text() == "new\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def stop_in_the_middle():
        with open_output(path, "wb") as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        stop_in_the_middle()
    assert path.read_text() == "new\n"
    assert names(tmp_path) == ["out.txt"]


def test_links_are_followed(tmp_path):
    (tmp_path / "there").mkdir()
    for name, target in (("link", "there/out.txt"), ("second", "link")):
        (tmp_path / name).symlink_to(target)
    write(tmp_path / "second")
    assert names(tmp_path) == ["link", "second", "there"]
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "out.txt").read_text() == "new\n"
    write(tmp_path / "second", "newer\n")
    assert (tmp_path / "there" / "out.txt").read_text() == "newer\n"
    assert names(tmp_path / "there") == ["out.txt"]


def test_a_pipe_is_written_through(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    thread = threading.Thread(target=lambda: read.append(pipe.read_text()))
    thread.start()
    write(pipe)
    thread.join()
    assert read == ["new\n"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert names(tmp_path) == ["pipe"]


def device(path, minor):
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        path.open("ab").close()
    except PermissionError:
        pytest.skip("only root makes devices, and not everywhere")
    return path


def test_a_device_stays_one(tmp_path):
    null = device(tmp_path / "null", 3)
    (tmp_path / "link").symlink_to("null")
    for path in (null, tmp_path / "link"):
        write(path)
        assert stat.S_ISCHR(null.lstat().st_mode)
    assert names(tmp_path) == ["link", "null"]


def test_a_full_disk_is_said_of_the_output(tmp_path):
    full = device(tmp_path / "full", 7)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write(full)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(full))


def test_what_the_shell_has_opened_is_written_through(tmp_path):
    """Also where it appends."""
    log = tmp_path / "log"
    log.write_text("before\n")
    program = (
        "from pathlib import Path; from spade_jax.files import open_output\n"
        "print('said', flush=True)\n"
        "with open_output(Path('/dev/stdout')) as file: file.write('new\\n')\n"
        "print('said again')\n"
    )
    with log.open("a") as file:
        subprocess.run([sys.executable, "-c", program], stdout=file, check=True)
    assert log.read_text() == "before\nsaid\nnew\nsaid again\n"
    assert names(tmp_path) == ["log"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is a folder; must be a file to write"),
        (".", "is a folder"),
        ("/", "is a folder"),
        ("folder", "is a folder"),
        ("link to the folder", "is a folder"),
        ("new/", "is a folder"),
        ("absent/out.txt", "cannot be written (No such file or directory); must be a file in a fo"),
        ("file/out.txt", "cannot be written (Not a directory)"),
        ("dangling", "cannot be written (No such file or directory)"),
        ("round", "cannot be written ("),
        ("x" * 300, "cannot be written (File name too long)"),
        ("socket", "cannot be written (Is a socket)"),
        ("a\0b", "cannot be written (embedded null byte)"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch, name, reason):
    import socket

    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link to the folder").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("absent/out.txt")
    (tmp_path / "round").symlink_to("round")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        before = names(tmp_path)
        with pytest.raises(ConfigError) as caught:
            check_output(name, "--output")
    assert str(caught.value).startswith(f"--output = {name!r}: {reason}")
    assert names(tmp_path) == before


def test_asking_changes_nothing(tmp_path):
    (tmp_path / "out.txt").write_text("old")
    for name in ("out.txt", "new.txt"):
        check_output(tmp_path / name, "--output")
    assert names(tmp_path) == ["out.txt"]
    assert (tmp_path / "out.txt").read_text() == "old"


def test_what_killed_processes_left_is_swept_and_what_others_write_is_not(tmp_path):
    dead = unfinished(tmp_path / "loss.png")
    dead.write_text("half")
    other = unfinished(tmp_path / "other.png")
    other.write_text("half")
    (tmp_path / ".mine.unfinished").write_text("")
    with atomic_write(tmp_path / "loss.png") as alive:
        alive.write_text("more than half")
        sweep(tmp_path, "loss.png")
        assert not dead.exists()
        assert other.exists()
        sweep(tmp_path)
        assert alive.exists()
    assert names(tmp_path) == [".mine.unfinished", "loss.png"]


def test_a_second_output_sweeps_what_a_killed_first_one_left(tmp_path):
    path = tmp_path / "out[1].txt"
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from spade_jax.files import open_output\n"
        "with open_output(Path(sys.argv[1])) as file: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, path], check=False)
    (left,) = names(tmp_path)
    assert left.endswith(".unfinished")
    write(path)
    assert names(tmp_path) == ["out[1].txt"]
