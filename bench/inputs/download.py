"""Fetches published weights: five seconds to the first byte, then patience and a progress bar."""

from __future__ import annotations

import hashlib
import re
import threading
import urllib.request
from pathlib import Path

import torch

from bench.output.progress import Say, bar
from fskernel.files import replacing

SCHEME = "https"  # also of where a server sends on to
FIRST_BYTE_SECONDS = 5.0
STALL_SECONDS = 60.0  # between two pieces, once the download has begun
PIECE = 1 << 18
# The whole SHA-256 of what conf/model names. Of other files torchvision tells the first digits, in
# their names.
SHA256 = {
    "resnet18-f37072fd.pth": "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    "resnet34-b627a593.pth": "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    "resnet50-0676ba61.pth": "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    "resnet50-11ad3fa6.pth": "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
}


class Unreachable(OSError):
    """The server did not answer, or the download broke off or cannot be trusted."""


def folder() -> Path:
    """Where torch keeps downloaded weights; TORCH_HOME moves it."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def checksum(name: str) -> str | None:
    """The SHA-256 of a published file, or its first digits; None where they are not known."""
    digits = re.search(r"[-_]([0-9a-f]{8,64})\.", name)
    return SHA256.get(name, digits and digits.group(1))


def cached(url: str) -> Path | None:
    """The file of an earlier download, unless its checksum says that it is another."""
    path = folder() / url.rsplit("/", 1)[-1]
    if not path.is_file():
        return None
    expected = checksum(path.name)
    if expected is None:
        return path
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return path if digest.hexdigest().startswith(expected) else None


def fetch(url: str, say: Say) -> Path:
    """Downloads url into torch's folder and returns the file.

    Raises:
        Unreachable: no https, no checksum known, no byte within five seconds, a broken connection,
            or other contents than the published ones.
        OSError: the file cannot be written.
    """
    target = folder() / url.rsplit("/", 1)[-1]
    _refuse_other_schemes(url)
    expected = checksum(target.name)
    if expected is None:
        raise Unreachable(
            f"{url} is not fetched: its name holds no digits of its SHA-256, so nobody could tell "
            f"whether it arrives whole; put a file that you trust into {target.parent}"
        )
    say(f"fetching {url}")
    response, piece = _first_piece(url)
    with response:
        total = _length(response.headers.get("Content-Length"))
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        with (
            replacing(target) as part,
            open(part, "wb") as file,
            bar(target.name, total) as advance,
        ):
            while piece:
                file.write(piece)
                digest.update(piece)
                size += len(piece)
                advance(len(piece))
                try:
                    piece = response.read(PIECE)
                except Exception as error:  # of sockets, TLS and HTTP
                    raise Unreachable(f"{url} broke off: {error}") from error
            if total not in (None, size):
                raise Unreachable(f"{url} broke off after {size} of {total} bytes")
            if not digest.hexdigest().startswith(expected):
                raise Unreachable(f"{url} arrived damaged: its SHA-256 is not {expected}...")
    return target


def _length(header: str | None) -> int | None:
    """What a server says of the length; whether it is true, size and checksum tell."""
    return int(header) if header and header.isdecimal() else None


def _refuse_other_schemes(url: str) -> None:
    if not url.startswith(f"{SCHEME}://"):
        raise Unreachable(f"{url} is not fetched: only {SCHEME} addresses are")


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Goes where a server sends on to, if that is as safe."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """The next request."""
        _refuse_other_schemes(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _first_piece(url: str):
    """The response and its first piece. A thread, since looking up a name knows no time-out."""
    found: list = []

    def connect() -> None:
        try:
            opener = urllib.request.build_opener(_SameScheme)
            response = opener.open(url, timeout=STALL_SECONDS)
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
