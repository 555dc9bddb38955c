"""Files that are whole or not there, whatever interrupts a write, and locks between writers."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# A file system that has no locks, or cannot write a folder's names out, is used without them.
UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


@contextmanager
def replacing(path: str | Path) -> Iterator[str]:
    """A file to write that then takes the place of `path`, at once, or leaves no trace.

    What was written is on the disk before the name stands for it: after a power cut the name stands
    for the old file or for the new one. A link is followed; a device or pipe is written directly.

    Raises:
        OSError: of the disk, with `path` as its `filename`.
    """
    path = Path(os.path.realpath(path))
    part = path.with_name(f"{secrets.token_hex(8)}.part")
    try:
        if path.exists() and not path.is_file():
            yield str(path)
            return
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        mode = os.fstat(handle).st_mode
        os.close(handle)
        yield str(part)
        # Some writers make the file anew, for its owner alone; a compiler makes it executable.
        os.chmod(part, mode | part.stat().st_mode & 0o111)
        _sync(part)
        os.replace(part, path)
        with suppress(PermissionError):  # a folder that may be written, but not read
            _sync(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(part)):
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Replaces a file by this text; errors as those of `replacing`."""
    with replacing(path) as part:
        Path(part).write_text(text)


def write_figure(figure, path: str | Path, **options) -> None:
    """Replaces a file by a matplotlib figure; errors as those of `replacing`.

    Args:
        figure: the figure.
        path: its ending decides the format.
        options: of `figure.savefig`.
    """
    with replacing(path) as part:
        figure.savefig(part, format=Path(path).suffix[1:], **options)


def _sync(path: Path) -> None:
    """Returns when a file's content, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(handle)


class Lock:
    """Held by one writer at a time, of all processes and threads, until released.

    A process that dies lets go of its locks. On a file system without locks all of them are given.

    Args:
        path: a file that is there while the lock is held.
        wait: until its holder lets go of it.

    Raises:
        BlockingIOError: another writer holds it, and `wait` is False.
        OSError: the file cannot be made.
    """

    def __init__(self, path: str | Path, wait: bool = False):
        self._let_go = weakref.finalize(self, _release, _hold(Path(path), wait), Path(path))

    def release(self) -> None:
        """Lets the next writer in; a second call does nothing."""
        self._let_go()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


def _hold(path: Path, wait: bool) -> int:
    """An open file that holds the lock."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException as error:
            if getattr(error, "errno", None) not in UNSUPPORTED:
                os.close(handle)
                raise
        if _is_at(handle, path):
            return handle
        os.close(handle)  # of a holder that has removed it meanwhile


def _release(handle: int, path: Path) -> None:
    # Removed while it is held: nobody can hold a file of that name then. Its folder may be gone.
    with suppress(OSError):
        if _is_at(handle, path):
            path.unlink()
    os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
