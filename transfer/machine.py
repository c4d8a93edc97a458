"""How much memory this process may use: the machine's, or the share that a container was given."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_UNKNOWN = 8 << 30  # where the system does not say

# The files of Linux's control groups, https://docs.kernel.org/admin-guide/cgroup-v2.html and
# .../cgroup-v1/memory.html. Their number is "max", or larger than any memory, where nothing is set.
_MEMBERSHIPS = Path("/proc/self/cgroup")
_VERSION_1 = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
_VERSION_2 = Path("/sys/fs/cgroup"), "memory.max"


def usable_memory() -> int:
    """Returns the bytes of memory there are for this process, in use or not.

    That is the machine's memory or, where it is less, what the control groups that the process
    is in may have: a container, or a service of systemd, is killed above it.
    """
    return min([_machine_memory(), *_group_limits()])


def _machine_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN


def _group_limits() -> Iterator[int]:
    for root, name, group in _groups():
        # A group is held to the limits of those above it. Inside a container its own path may be
        # the host's, of which nothing is to be seen but the limits at the root.
        for folder in (group, *group.parents):
            with contextlib.suppress(OSError, ValueError):  # not there; "max"
                yield int((root / folder / name).read_text())


def _groups() -> Iterator[tuple[Path, str, Path]]:
    # The root and file name of each hierarchy that can limit memory, and the group in it.
    with contextlib.suppress(OSError):  # not Linux
        # A group's name may hold any bytes, as a file's may.
        for line in _MEMBERSHIPS.read_text("utf-8", "surrogateescape").splitlines():
            _, controllers, group = line.split(":", 2)
            if "memory" in controllers.split(","):
                yield *_VERSION_1, Path(group.lstrip("/"))
            elif not controllers:
                yield *_VERSION_2, Path(group.lstrip("/"))


def has_accelerator() -> bool:
    """Returns whether the backend of Keras sees a GPU or TPU."""
    if os.environ.get("KERAS_BACKEND") == "jax":
        import jax

        return bool(jax.default_backend() != "cpu")
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU"))


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Returns what the CPU says it can do; nothing where it cannot say."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    return frozenset(text.split())


def cpu_has(*flags: str) -> bool:
    """Returns whether the CPU says it has one of these flags at least."""
    return not cpu_flags().isdisjoint(flags)
