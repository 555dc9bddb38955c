"""Risk: a file is half written, lost in a power cut, or written by two at once."""

import ast
import errno
import multiprocessing
import os
import signal
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file

from bench import ROOT
from bench.emulated import build
from fskernel.calibration.spool import Spool
from fskernel.files import Lock, replacing, write_figure, write_text

SOURCES = [*ROOT.glob("fskernel*/**/*.py"), *ROOT.glob("bench/**/*.py"), ROOT / "setup.py"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def renames(source):
    """The lines of Python code that put a file in the place of another."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil"):
            if {"replace", "rename", "renames", "move"} & {alias.name for alias in node.names}:
                found.append(node.lineno)
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        of, method = ast.unparse(node.func.value), node.func.attr
        if of in ("os", "shutil") and method in ("replace", "rename", "renames", "move"):
            found.append(node.lineno)
        elif method == "rename" and of not in ("os", "shutil"):  # of a path
            found.append(node.lineno)
        elif method == "replace" and len(node.args) == 1 and not node.keywords:  # str's has two
            found.append(node.lineno)
    return found


def test_every_file_that_is_replaced_is_on_the_disk_before():
    """One helper does it; whoever renames on his own forgets to write out."""
    found = {str(p.relative_to(ROOT)): renames(p.read_text()) for p in SOURCES}
    assert len(found) > 60
    assert {name for name, lines in found.items() if lines} == {"fskernel/files.py"}
    assert len(found["fskernel/files.py"]) == 1


RENAMES = "os.replace(a, b)|a.replace(b)|a.rename(b)|shutil.move(a, b)|from os import rename"


@pytest.mark.parametrize("line", RENAMES.split("|"))
def test_the_rule_sees_every_way_to_rename(line):
    assert renames(f"import os\n{line}\n") == [2]
    assert not renames("text.replace('a', 'b')\nreplace(row, a=1)\ndate.replace(hour=3)\n")


def test_content_then_name_then_folder_reach_the_disk_in_this_order(tmp_path, monkeypatch):
    done = []

    def fsync(handle, f=os.fsync):
        path = os.readlink(f"/proc/self/fd/{handle}")
        content = Path(path).read_text() if os.path.isfile(path) else None
        done.append(("sync", Path(path), content))
        f(handle)

    def replace(a, b, f=os.replace):
        done.append(("replace", Path(a), Path(b)))
        f(a, b)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    path = tmp_path / "a.json"
    write_text(path, "the text")
    part = done[0][1]
    assert done == [
        ("sync", part, "the text"),
        ("replace", part, path),
        ("sync", tmp_path, None),
    ]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError, OSError])
@pytest.mark.parametrize("moment", ["before", "written", "fsync", "chmod", "replace"])
def test_whatever_interrupts_a_write_leaves_the_old_file_alone(tmp_path, monkeypatch, kind, moment):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(*args):
        raise kind(errno.ENOSPC, "full")

    if moment in ("fsync", "chmod", "replace"):
        monkeypatch.setattr(os, moment, fail)
    with pytest.raises(kind) as caught, replacing(path) as part:
        if moment == "before":
            fail()
        Path(part).write_bytes(b"new")
        if moment == "written":
            fail()
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]
    if kind is OSError:
        assert caught.value.filename == str(path)


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_mode_that_the_user_wants(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a", "a")
        with replacing(tmp_path / "b") as part:  # which makes the file anew, for its owner alone
            save_file({"x": torch.ones(3)}, part)
        with replacing(tmp_path / "c") as part:
            os.chmod(part, 0o755)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(os.stat(tmp_path / n).st_mode) for n in "ab"] == [mode, mode]
    assert os.stat(tmp_path / "c").st_mode & 0o111 == 0o111


def test_links_are_followed_and_devices_are_written_into(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "file")
    for text in ("one", "two"):
        write_text(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "far" / "file").read_text() == text
    before = os.stat("/dev/null")
    write_text("/dev/null", "x" * 9)
    assert os.path.samestat(before, os.stat("/dev/null")) and stat.S_ISCHR(before.st_mode)
    with pytest.raises(OSError) as caught:
        write_text("/dev/full", "x" * 9)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "far", "x")
    assert names(tmp_path) == ["far", "link"] and names(tmp_path / "far") == ["file"]


def test_a_folder_that_cannot_be_written_out_is_no_error(tmp_path, monkeypatch):
    def fsync(handle, f=os.fsync):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EINVAL, "not here")
        f(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"


@pytest.mark.parametrize("ending, first", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%P")])
def test_the_ending_decides_what_a_figure_becomes(tmp_path, ending, first):
    figure = Figure(figsize=(1, 1))
    write_figure(figure, tmp_path / f"a.{ending}", dpi=30)
    assert (tmp_path / f"a.{ending}").read_bytes().startswith(first)
    assert names(tmp_path) == [f"a.{ending}"]


# ---- locks -------------------------------------------------------------------------------------


def test_a_lock_has_one_holder_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.lock"
    first = Lock(path)
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            Lock(path)
    first.release()
    first.release()
    assert not names(tmp_path)
    with Lock(path), pytest.raises(BlockingIOError):
        Lock(path)
    forgotten = Lock(path)
    del forgotten
    with Lock(path):
        assert names(tmp_path) == ["a.lock"]
    assert not names(tmp_path)


def test_a_lock_that_was_removed_by_hand_lets_go_of_its_own_file_only(tmp_path):
    path = tmp_path / "a.lock"
    first = Lock(path)
    path.unlink()
    second = Lock(path)
    first.release()
    with pytest.raises(BlockingIOError):
        Lock(path)
    second.release()
    assert not names(tmp_path)


def test_the_lock_of_a_dead_process_is_free(tmp_path):
    path = tmp_path / "a.lock"
    child = os.fork()
    if not child:
        kept = Lock(path)
        Path(tmp_path / "held").touch()
        time.sleep(60)
        os._exit(bool(kept))
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(BlockingIOError):
        Lock(path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.exists(), "it could not tidy up"
    with Lock(path):
        pass
    assert names(tmp_path) == ["held"]


def count_up(path, times):
    for _ in range(times):
        with Lock(path.with_suffix(".lock"), wait=True):
            write_text(path, str(int(path.read_text()) + 1))


def test_writers_that_wait_lose_nothing(tmp_path, monkeypatch):
    """Threads and processes: each of 60 reads and writes sees the one before."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    path = tmp_path / "n"
    path.write_text("0")
    processes = [
        multiprocessing.get_context("fork").Process(target=count_up, args=(path, 15))
        for _ in range(2)
    ]
    threads = [threading.Thread(target=count_up, args=(path, 15)) for _ in range(2)]
    for worker in processes + threads:
        worker.start()
    for worker in processes + threads:
        worker.join(60)
    assert path.read_text() == "60" and names(tmp_path) == ["n"]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_used_without_them(tmp_path, monkeypatch, code):
    def flock(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    with Lock(tmp_path / "a.lock"), Lock(tmp_path / "a.lock", wait=True):
        pass
    assert not names(tmp_path)


@pytest.mark.parametrize("place", ["missing/a.lock", "file/a.lock"])
def test_a_lock_that_cannot_be_made_says_so(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises((FileNotFoundError, NotADirectoryError)):
        Lock(tmp_path / place)


# ---- what uses them ----------------------------------------------------------------------------


def test_compiled_programs_take_their_name_when_they_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "FOLDER", tmp_path / "built")
    source = tmp_path / "a.cpp"
    source.write_text("int main() { return 7; }")
    first = build.build("a", ["a.cpp"], reads=["*.h"])
    assert subprocess.run([first]).returncode == 7 and names(tmp_path / "built") == [first.name]
    source.write_text("int main() { return }")
    with pytest.raises(RuntimeError, match="error"):
        build.build("a", ["a.cpp"], reads=["*.h"])
    assert names(tmp_path / "built") == [first.name]
    source.write_text("int main() { return 8; }")
    second = build.build("a", ["a.cpp"], reads=["*.h"])
    assert subprocess.run([second]).returncode == 8 and names(tmp_path / "built") == [second.name]


def test_images_that_do_not_fit_on_the_disk_say_so(monkeypatch):
    monkeypatch.setattr(
        "fskernel.calibration.spool.Path.open", lambda path, mode: open("/dev/full", mode)
    )
    with pytest.raises(OSError, match="No space left on device"):
        Spool([torch.zeros(100_000)], limit=10)
