"""Two machines on one: network namespaces joined by a link that can be cut, and made slow.

For root on Linux with iproute2. A process in a namespace sees its own end of the link and its own
loopback, and nothing else of the network; files and processors are those of this machine.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FIRST, SECOND = ADDRESSES = "10.87.65.1", "10.87.65.2"
_BURST_SECONDS = 0.001  # of the full rate, that a shaped link may send at once
_QUEUE_SECONDS = 0.05  # of the full rate, that may wait to be sent


@dataclass(frozen=True)
class Namespaces:
    """Two namespaces and the link between them.

    Attributes:
        names: of the two; `ADDRESSES` are theirs.
        ends: of the link, one in each.
    """

    names: tuple[str, str]
    ends: tuple[str, str]

    def command(self, number: int, words: Sequence[object]) -> list[str]:
        """Returns a command that runs another one in the namespace of a number."""
        return ["ip", "netns", "exec", self.names[number], *map(str, words)]

    def cut(self) -> None:
        """Takes the link down: what is sent is lost, and neither side is told."""
        _run("ip", "-n", self.names[1], "link", "set", self.ends[1], "down")

    def mend(self) -> None:
        """Takes it up again."""
        _run("ip", "-n", self.names[1], "link", "set", self.ends[1], "up")

    def shape(self, gigabits: float) -> None:
        """Lets so many Gbit/s through the link in each direction; with 0 all that it can."""
        bits = gigabits * 1e9
        limits = ("burst", f"{max(bits * _BURST_SECONDS / 8, 70_000):.0f}")
        limits += ("limit", f"{bits * _QUEUE_SECONDS / 8:.0f}", "rate", f"{bits:.0f}")
        for name, end in zip(self.names, self.ends, strict=True):
            if gigabits:
                _run("tc", "-n", name, "qdisc", "replace", "dev", end, "root", "tbf", *limits)
            else:
                _run("tc", "-n", name, "qdisc", "replace", "dev", end, "root", "noqueue")


def _run(*words: str) -> str:
    finished = subprocess.run(words, capture_output=True, text=True)
    if finished.returncode:
        raise OSError(f"`{' '.join(words)}`: {finished.stderr.strip()}")
    return finished.stdout


def _end(pids: Sequence[str]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


@contextlib.contextmanager
def two_namespaces() -> Iterator[Namespaces]:
    """Yields two namespaces that see each other and nothing else; what still runs there is killed.

    Raises:
        OSError: iproute2 is missing, or this process may not make them.
    """
    number = os.getpid() % 10_000_000
    both = Namespaces((f"two{number}a", f"two{number}b"), (f"tw{number}a", f"tw{number}b"))
    try:
        for name in both.names:
            _run("ip", "netns", "add", name)
        _run("ip", "link", "add", both.ends[0], "type", "veth", "peer", "name", both.ends[1])
        for name, end, address in zip(both.names, both.ends, ADDRESSES, strict=True):
            _run("ip", "link", "set", end, "netns", name)
            _run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", end)
            for link in (end, "lo"):
                _run("ip", "-n", name, "link", "set", link, "up")
        yield both
    finally:
        for name in both.names:  # the link goes with them
            with contextlib.suppress(OSError):
                _end(_run("ip", "netns", "pids", name).split())
                _run("ip", "netns", "del", name)
