"""Risk: weights from the network are cut, changed or from elsewhere; a slow server is given up."""

import hashlib
import http.server
import io
import threading
import time
import urllib.request
import urllib.response
from email.message import Message
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from bench.errors import UserError
from bench.inputs import download, models
from bench.inputs.download import SHA256, Unreachable, checksum, fetch
from fskernel import files


def quiet(_):
    """Says nothing."""


def small():
    return nn.Linear(3, 2)


def conf(weights):
    keys = {"_target_": "test_download.small", "weights": weights, "packages": [], "args": {}}
    return OmegaConf.create(keys)


def named(body, digits=8):
    """A file name that tells the contents, as torchvision does it."""
    return f"net-{hashlib.sha256(body).hexdigest()[:digits]}.pth"


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A web server, which is taken for a safe one.

    Attributes:
        first_delay, delay: seconds before and between the pieces it sends.
        cut: bytes that it sends, None: all.
        length: what it says that it sends: "right", "none", "chunked" or a text.
        redirect: where it sends on to.
        asked: the paths that were asked for.
    """
    state = SimpleNamespace(body=b"x" * 3000, first_delay=0.0, delay=0.0, cut=None, url=None)
    state.length, state.redirect, state.asked = "right", None, []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            state.asked.append(self.path)
            time.sleep(state.first_delay)
            if state.redirect and not self.path.startswith("/there"):
                self.send_response(302)
                self.send_header("Location", state.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            said = {"right": str(len(state.body)), "none": None, "chunked": None}
            said = said.get(state.length, state.length)
            if said is not None:
                self.send_header("Content-Length", said)
            if state.length == "chunked":
                self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Connection", "close")
            self.end_headers()
            for at in range(0, len(state.body[: state.cut]), 1000):
                piece = state.body[: state.cut][at : at + 1000]
                if state.length == "chunked":
                    piece = b"%x\r\n%s\r\n" % (len(piece), piece)
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(state.delay)
            if state.length == "chunked" and state.cut is None:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{httpd.server_port}/"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(download, "FIRST_BYTE_SECONDS", 0.5)
    monkeypatch.setattr(download, "SCHEME", "http")
    yield state
    httpd.shutdown()
    httpd.server_close()


def nothing_is_left():
    return not list(download.folder().glob("*"))


def test_a_slow_download_is_waited_for_once_it_has_begun(server):
    server.delay = 0.3  # together longer than the limit for the first byte
    url = server.url + named(server.body)
    path = fetch(url, quiet)
    assert path.read_bytes() == server.body and download.cached(url) == path
    assert len(list(download.folder().iterdir())) == 1


def test_a_server_that_does_not_answer_is_given_up(server):
    server.first_delay = 3.0
    start = time.monotonic()
    with pytest.raises(Unreachable, match="within 0.5 seconds"):
        fetch(server.url + named(server.body), quiet)
    assert time.monotonic() - start < 2.0


@pytest.mark.parametrize("length", ["right", "none", "chunked", "many", "-3"])
@pytest.mark.parametrize("fault", [None, "cut", "changed", "longer", "empty"])
def test_only_the_published_contents_become_a_file(server, length, fault):
    """With a length, without one, and with one that is no number."""
    name = named(server.body, 64 if length == "none" else 8)
    server.length = length
    if fault == "cut":
        server.cut = 2001
    else:
        changed = {"changed": b"x" * 2999 + b"y", "longer": b"x" * 3001, "empty": b""}
        server.body = changed.get(fault, server.body)
    if fault is None:
        assert fetch(server.url + name, quiet).read_bytes() == server.body
        return
    with pytest.raises(Unreachable, match="broke off|arrived damaged|cannot be reached"):
        fetch(server.url + name, quiet)
    assert download.cached(server.url + name) is None and nothing_is_left()


@pytest.mark.parametrize("said", ["1000", "9000"])
def test_a_server_that_lies_about_the_length_is_found_out(server, said):
    server.length = said
    with pytest.raises(Unreachable, match="broke off after 3000 of 9000|arrived damaged"):
        fetch(server.url + named(server.body), quiet)
    assert nothing_is_left()


@pytest.mark.parametrize("name", ["net.pth", "net-0123abc.pth", "net-0123ABCD.pth", "net_v2.pth"])
def test_what_could_not_be_checked_is_not_fetched(server, name):
    with pytest.raises(Unreachable, match="no digits of its SHA-256.*put a file that you trust"):
        fetch(server.url + name, quiet)
    assert not server.asked and nothing_is_left()


@pytest.mark.parametrize("scheme", ["http", "ftp", "file", "data", "HTTP"])
def test_other_addresses_than_https_are_not_fetched(server, monkeypatch, scheme):
    monkeypatch.setattr(download, "SCHEME", "https")
    address = server.url.partition(":")[2]
    with pytest.raises(Unreachable, match="only https addresses"):
        fetch(f"{scheme}:{address}{named(server.body)}", quiet)
    assert not server.asked and nothing_is_left()


@pytest.mark.parametrize("to", ["https://127.0.0.1:1/", "ftp://127.0.0.1/", "file:///etc/", "//a/"])
def test_a_server_may_send_on_only_to_what_is_as_safe(server, to):
    """Here http is taken for safe, and all others are not."""
    name = named(server.body)
    server.redirect = f"/there/{name}"
    assert fetch(server.url + name, quiet).read_bytes() == server.body
    assert len(server.asked) == 2
    download.cached(server.url + name).unlink()
    server.redirect = to + name
    # Python itself refuses what is neither http, https nor ftp.
    wanted = "only http addresses" if to[:5] in ("https", "ftp:/") else "cannot be reached"
    with pytest.raises(Unreachable, match=wanted):
        fetch(server.url + name, quiet)
    assert nothing_is_left()


def test_https_is_not_left_behind_a_redirect(server, monkeypatch):
    """The real rule: an answer over https that names an http address."""
    monkeypatch.setattr(download, "SCHEME", "https")

    class Https(urllib.request.BaseHandler):
        handler_order = 1

        def https_open(self, request):
            headers = Message()
            headers["Location"] = server.url + named(server.body)
            answer = urllib.response.addinfourl(io.BytesIO(), headers, request.full_url, 302)
            answer.msg = "Found"
            return answer

    opener = urllib.request.build_opener
    monkeypatch.setattr(urllib.request, "build_opener", lambda *h: opener(Https, *h))
    with pytest.raises(Unreachable, match=f"{server.url}.* only https addresses are"):
        fetch(f"https://example.com/{named(server.body)}", quiet)
    assert not server.asked and nothing_is_left()


def test_a_loop_of_redirects_ends(server):
    server.redirect = f"/{named(server.body)}"
    with pytest.raises(Unreachable, match="cannot be reached"):
        fetch(server.url + named(server.body), quiet)
    assert len(server.asked) < 20


def test_a_full_disk_is_not_taken_for_a_broken_connection(server, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_sync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        fetch(server.url + named(server.body), quiet)
    assert not isinstance(caught.value, Unreachable) and nothing_is_left()
    assert caught.value.filename == str(download.folder() / named(server.body))


def test_a_cached_file_of_other_contents_is_fetched_anew(server):
    url = server.url + named(server.body)
    path = fetch(url, quiet)
    path.write_bytes(server.body[:-1])
    assert download.cached(url) is None
    assert fetch(url, quiet).read_bytes() == server.body and download.cached(url) == path
    (download.folder() / "mine.pth").write_bytes(b"1")  # put there by the user
    assert download.cached("https://example.com/mine.pth").read_bytes() == b"1"


def test_every_published_file_can_be_checked():
    from torchvision.models import get_model_weights, list_models

    urls = {w.url for name in list_models() for w in get_model_weights(name)}
    assert len(urls) > 100
    for url in urls:
        name = url.rsplit("/", 1)[-1]
        assert url.startswith("https://") and checksum(name), url
    names = {url.rsplit("/", 1)[-1] for url in urls}
    ours = {name for name in names if name.split("-")[0] in ("resnet18", "resnet34", "resnet50")}
    assert ours == set(SHA256)
    for name, full in SHA256.items():
        assert len(full) == 64 and name == f"{name.split('-')[0]}-{full[:8]}.pth"
        assert checksum(name) == full


def test_the_whole_checksum_counts_where_it_is_known(server, monkeypatch):
    name = named(server.body)
    monkeypatch.setitem(SHA256, name, hashlib.sha256(server.body).hexdigest()[:-1] + "?")
    with pytest.raises(Unreachable, match="arrived damaged"):
        fetch(server.url + name, quiet)
    assert nothing_is_left()


# ---- what the harness makes of it --------------------------------------------------------------


def published(monkeypatch, url):
    """Makes torchvision's weights for `small` one entry at this address."""
    transforms = SimpleNamespace(keywords={"resize_size": 232})
    entry = SimpleNamespace(url=url, name="IMAGENET1K_V9", transforms=transforms)
    monkeypatch.setattr(models, "published_weights", lambda make: [entry])


def test_auto_fetches_once_and_then_takes_the_cached_file(server, monkeypatch, tmp_path):
    source = small()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    server.body = (tmp_path / "w.pth").read_bytes()
    published(monkeypatch, server.url + named(server.body))
    said = []
    for _ in range(2):
        net, weights = models.build(conf("auto"), 0, said.append)
        assert torch.equal(net.weight, source.weight)
        assert (weights.name, weights.random, weights.resize) == ("IMAGENET1K_V9", False, 232)
    assert len([line for line in said if "fetching" in line]) == 1
    net, _ = models.build(conf("imagenet1k_v9"), 0, quiet)
    assert torch.equal(net.weight, source.weight)


@pytest.mark.parametrize("name", ["w-00000000.pth", "w.pth"])
def test_auto_goes_on_with_random_weights_offline_and_says_so(server, monkeypatch, name):
    published(monkeypatch, f"http://127.0.0.1:1/{name}")
    said = []
    _, weights = models.build(conf("auto"), 0, said.append)
    assert weights.random and "random" in said[-1]
    with pytest.raises(UserError, match="model.weights=random"):
        models.build(conf("IMAGENET1K_V9"), 0, quiet)
