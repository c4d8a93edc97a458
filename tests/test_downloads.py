"""Downloads: whole and checked or not at all, and never a long wait."""

import contextlib
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from transfer.errors import InputError
from transfer.storage import downloads
from transfer.storage.atomic import is_temporary
from transfer.storage.downloads import DownloadError, download

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by path: the address says what goes wrong."""

    def do_GET(self) -> None:
        if self.path == "/hang":
            self.server.release.wait(5)
            return
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path == "/to-file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.end_headers()
            return
        self.send_response(200)
        if self.path != "/no-length":
            self.send_header("Content-Length", "0" if self.path == "/empty" else str(len(CONTENT)))
        self.end_headers()
        if self.path == "/headers-only":
            self.server.release.wait(5)
        elif self.path in ("/truncated", "/stalled"):
            self.wfile.write(CONTENT[:1000])
            self.wfile.flush()
            if self.path == "/stalled":
                self.server.release.wait(5)
        elif self.path != "/empty":
            self.wfile.write(CONTENT)

    def log_message(self, *arguments: object) -> None:
        """Says nothing in the tests' output."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.release = threading.Event()
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.release.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("page", ["/good", "/no-length"])
def test_whole_file_arrives(server, tmp_path, page):
    target = tmp_path / "new" / "folder" / "file.bin"
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert download(server + page, target, sha256=SHA256.upper(), md5=md5) == target
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == ["file.bin"]


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("/truncated", "should have 256000 bytes. Received: 1000"),
        ("/empty", "Received: 0"),
        ("/missing", "HTTP 404"),
        ("/to-file", "not allowed"),
    ],
)
def test_failure_leaves_nothing_and_tells_one_line(server, tmp_path, page, told):
    with pytest.raises(DownloadError) as caught:
        download(server + page, tmp_path / "file.bin")
    assert told.lower() in str(caught.value).lower()
    assert len(str(caught.value).splitlines()) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("checksum", [{"sha256": "0" * 64}, {"md5": "0" * 32}])
def test_wrong_checksum_keeps_the_old_file(server, tmp_path, checksum):
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")
    with pytest.raises(DownloadError, match="should have (sha256|md5) 0000"):
        download(server + "/good", target, **checksum)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("page", ["/hang", "/headers-only", "/stalled"])
def test_silent_server_is_given_up(server, tmp_path, page):
    begun = time.monotonic()
    with pytest.raises(DownloadError, match="no answer from .* within 0.3 s"):
        download(server + page, tmp_path / "file.bin", answer_seconds=0.3)
    assert time.monotonic() - begun < 1.5
    assert os.listdir(tmp_path) == []


def test_hanging_name_look_up_is_given_up(monkeypatch, tmp_path):
    release = threading.Event()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(5) and [])
    begun = time.monotonic()
    with pytest.raises(DownloadError, match="no answer"):
        download("http://name.invalid/file", tmp_path / "file", answer_seconds=0.2)
    assert time.monotonic() - begun < 1.5
    release.set()


def test_refused_connection(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening
        with pytest.raises(DownloadError, match="no answer"):
            download(f"http://127.0.0.1:{closed.getsockname()[1]}/x", tmp_path / "x")


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "nothing", ""])
def test_only_http(tmp_path, url):
    with pytest.raises(DownloadError, match="http"):
        download(url, tmp_path / "x")


def test_unwritable_target_is_told(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        download(server + "/good", tmp_path / "file" / "x")


def test_killed_download_is_never_taken_for_a_whole_one(server, tmp_path):
    target = tmp_path / "file.bin"
    code = "import sys, pathlib; from transfer.storage.downloads import download; "
    code += "download(sys.argv[1], pathlib.Path(sys.argv[2]), answer_seconds=60)"
    arguments = [sys.executable, "-c", code, server + "/stalled", str(target)]
    with subprocess.Popen(arguments, cwd=Path(downloads.__file__).parents[2]) as process:
        while not any(tmp_path.glob(".*.file.bin")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not target.exists()
    leftovers = sorted(path.name for path in tmp_path.iterdir())
    assert len(leftovers) == 2 and leftovers[1] == "file.bin.lock"
    assert is_temporary(leftovers[0], r"file\.bin")
    download(server + "/good", target, sha256=SHA256)
    assert target.read_bytes() == CONTENT


def test_old_leftovers_are_removed_and_a_running_download_is_not(server, tmp_path):
    target = tmp_path / "file.bin"
    old, running = (tmp_path / f".{'0' * 8}-{number}-{'a' * 8}.file.bin" for number in (1, 2))
    for leftover in (old, running):
        leftover.write_bytes(CONTENT[:10])
    os.utime(old, (0, 0))
    download(server + "/good", target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert sorted(os.listdir(tmp_path)) == [running.name, "file.bin"]


def test_target_is_absent_until_whole(server, tmp_path, monkeypatch):
    seen = []
    compare = downloads._compare

    def spy(*arguments):
        seen.append(sorted(path.name[-13:] for path in tmp_path.iterdir()))
        assert not (tmp_path / "file.bin").exists()
        compare(*arguments)

    monkeypatch.setattr(downloads, "_compare", spy)
    download(server + "/good", tmp_path / "file.bin")
    [[temporary, lock]] = seen
    assert temporary.endswith(".file.bin") and lock == "file.bin.lock"


def test_of_four_at_once_one_downloads_and_the_others_take_its_file(server, tmp_path, monkeypatch):
    target: Path = tmp_path / "file.bin"
    failures, fetched = [], []
    receive = downloads._receive
    monkeypatch.setattr(downloads, "_receive", lambda *args: fetched.append(args) or receive(*args))
    # All four have looked for the file before one of them fetches it: who finds it there when it
    # begins wants it fetched anew.
    begun, locked = threading.Barrier(4), downloads.locked

    def wait_and_lock(path: Path):
        begun.wait(10)
        return locked(path)

    monkeypatch.setattr(downloads, "locked", wait_and_lock)

    def fetch() -> None:
        with contextlib.suppress(DownloadError):
            download(server + "/good", target, sha256=SHA256)
            return
        failures.append(1)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert target.read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["file.bin"]
    assert len(fetched) == 1
