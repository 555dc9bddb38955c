"""Fetches published weights: five seconds to the first byte, then patience and a progress bar."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import threading
import urllib.request
from pathlib import Path

import torch

from bench.progress import Say, bar

FIRST_BYTE_SECONDS = 5.0
STALL_SECONDS = 60.0  # between two pieces, once the download has begun
PIECE = 1 << 18


class Unreachable(OSError):
    """The server did not answer, or the download broke off."""


def folder() -> Path:
    """Where torch keeps downloaded weights; TORCH_HOME moves it."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def cached(url: str) -> Path | None:
    """The file of an earlier download."""
    path = folder() / url.rsplit("/", 1)[-1]
    return path if path.is_file() else None


def fetch(url: str, say: Say) -> Path:
    """Downloads url into torch's folder and returns the file.

    Raises:
        Unreachable: no byte within five seconds, a broken connection, or damaged contents.
    """
    target = folder() / url.rsplit("/", 1)[-1]
    say(f"fetching {url}")
    response, piece = _first_piece(url)
    part = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        total = int(response.headers.get("Content-Length") or 0) or None
        handle, part = tempfile.mkstemp(dir=target.parent, suffix=".part")
        digest = hashlib.sha256()
        with response, os.fdopen(handle, "wb") as file, bar(target.name, total) as advance:
            while piece:
                file.write(piece)
                digest.update(piece)
                advance(len(piece))
                piece = response.read(PIECE)
            size = file.tell()
        if total is not None and size != total:
            raise Unreachable(f"{url} broke off after {size} of {total} bytes")
        # torchvision writes the first digits of the SHA-256 into the file's name.
        digits = re.search(r"-([0-9a-f]{8,})\.", target.name)
        if digits and not digest.hexdigest().startswith(digits.group(1)):
            raise Unreachable(f"{url} arrived damaged (its SHA-256 is not the one in its name)")
        os.replace(part, target)
        part = None
    except Unreachable:
        raise
    except Exception as error:
        raise Unreachable(f"{url} broke off: {error}") from error
    finally:
        if part is not None:
            Path(part).unlink(missing_ok=True)
    return target


def _first_piece(url: str):
    """The response and its first piece. A thread, since looking up a name knows no time-out."""
    found: list = []

    def connect() -> None:
        try:
            response = urllib.request.urlopen(url, timeout=STALL_SECONDS)
            found.append((response, response.read1(PIECE)))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(FIRST_BYTE_SECONDS)
    if not found:
        raise Unreachable(f"no answer from {url} within {FIRST_BYTE_SECONDS:g} seconds")
    if isinstance(found[0], Exception):
        raise Unreachable(f"{url} cannot be reached: {getattr(found[0], 'reason', found[0])}")
    return found[0]
