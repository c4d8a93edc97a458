"""Files from the web, for the stages that fetch: data sets and pretrained weights.

A file appears under its own name only when it is whole and checked, so that a killed
download can never be taken for one, and nobody waits long for a network that is not there.
"""

import contextlib
import hashlib
import http.client
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from transfer.errors import InputError
from transfer.storage.atomic import remove_leftovers, whole_file
from transfer.storage.locks import locked

_PIECE_BYTES = 1 << 16
_NETWORK_ERRORS = (OSError, http.client.HTTPException, ValueError)


class DownloadError(InputError):
    """A file could not be fetched, or what came is not what was announced."""


def is_offline(offline: bool) -> bool:
    """Returns whether the network is forbidden: by `offline`, or by TRANSFER_OFFLINE=1."""
    return offline or os.environ.get("TRANSFER_OFFLINE", "0") not in ("", "0")


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    answer_seconds: float = 10.0,
) -> Path:
    """Fetches a file: whole, checked and on disk under its name, or not at all.

    The bytes go to a temporary name of this process beside `target`, are checked against
    Content-Length and the checksums, flushed to the disk and renamed. Of two processes that want
    the same file the second waits and takes what the first one fetched.

    Args:
        url: http or https address.
        target: file to write; its folder is made where it is missing.
        sha256: hexadecimal SHA-256 that the file should have.
        md5: hexadecimal MD5 that the file should have.
        answer_seconds: longest wait for the first byte (name look-up, connection and
            headers included), and for each further piece.

    Returns:
        `target`.

    Raises:
        DownloadError: no answer in time, a refusal, a truncated file, a wrong checksum, or
            a folder that cannot be written.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"a download should be from http:// or https://. Received: {url}.")
    expected = {"sha256": sha256, "md5": md5}
    missing = not target.exists()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):
            if not (missing and target.exists()):
                _fetch_locked(url, target, expected, answer_seconds)
    except OSError as error:
        raise DownloadError(f"{target} cannot be written: {error.strerror or error}.") from error
    return target


def _fetch_locked(
    url: str, target: Path, expected: dict[str, str | None], answer_seconds: float
) -> None:
    remove_leftovers(target.parent, re.escape(target.name))
    with contextlib.closing(_receive(url, answer_seconds)) as pieces, whole_file(target) as file:
        _compare(url, _write(pieces, file), expected)


def _write(pieces: Iterable[bytes], file: IO[bytes]) -> dict[str, str]:
    # Returns the checksums of what was written.
    digests = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    for piece in pieces:
        file.write(piece)
        for digest in digests.values():
            digest.update(piece)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _compare(url: str, found: dict[str, str], expected: dict[str, str | None]) -> None:
    for name, checksum in expected.items():
        if checksum is not None and checksum.lower() != found[name]:
            raise DownloadError(
                f"the file from {url} should have {name} {checksum}. Received: {found[name]}; "
                "a proxy may have changed it, or the connection broke: try again."
            )


def _receive(url: str, answer_seconds: float) -> Generator[bytes, None, None]:
    # The network is used in a thread of its own, because a look-up of a name can hang where no
    # timeout reaches it. The thread is a daemon and holds nothing but its socket, so that the
    # caller can turn its back on it.
    pieces: queue.Queue = queue.Queue(maxsize=32)
    abandoned = threading.Event()
    arguments = (url, answer_seconds, pieces, abandoned)
    threading.Thread(target=_fetch, args=arguments, daemon=True).start()
    try:
        deadline = time.monotonic() + answer_seconds
        announced, received = _next(pieces, url, deadline, answer_seconds), 0
        while piece := _next(pieces, url, deadline, answer_seconds):
            received += len(piece)
            yield piece
            deadline = time.monotonic() + answer_seconds
    finally:
        abandoned.set()
    if not received or (announced is not None and received != announced):
        raise DownloadError(
            f"the file from {url} should have {announced or 'some'} bytes. Received: {received}; "
            "the connection broke: try again."
        )


def _next(pieces: queue.Queue, url: str, deadline: float, answer_seconds: float) -> Any:
    try:
        item = pieces.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        item = TimeoutError()
    if isinstance(item, urllib.error.HTTPError):
        item.close()
        raise DownloadError(f"{url} answered HTTP {item.code} {item.reason}.") from item
    reason = getattr(item, "reason", item)  # URLError wraps what really happened
    if isinstance(reason, TimeoutError):
        raise DownloadError(f"no answer from {url} within {answer_seconds:g} s; check the network.")
    if isinstance(item, Exception):
        told = getattr(reason, "strerror", None) or str(reason) or repr(reason)
        raise DownloadError(f"no answer from {url}: {told}.") from item
    return item


def _fetch(
    url: str, answer_seconds: float, pieces: queue.Queue, abandoned: threading.Event
) -> None:
    # Puts the announced length (or None), then the pieces, then b""; or the error instead.
    def put(item: Any) -> bool:
        while not abandoned.is_set():
            try:
                pieces.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    try:
        request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
        with _opener().open(request, timeout=answer_seconds) as response:
            length = response.headers.get("Content-Length", "")
            going_on = put(int(length) if length.isdigit() else None)
            while going_on and (piece := response.read1(_PIECE_BYTES)):
                going_on = put(piece)
        put(b"")
    except _NETWORK_ERRORS as error:
        put(error)


def _opener() -> urllib.request.OpenerDirector:
    # urllib's default opener would also follow a redirect to ftp://; this one knows http(s) only.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener
