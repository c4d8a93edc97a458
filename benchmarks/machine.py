"""The machine that was measured: what it is, and what it can do at best."""

import importlib.metadata
import os
import platform
import time
from pathlib import Path

_MATRIX_SIDE = 2048
_ARRAY_BYTES = 256 << 20


def describe_machine() -> dict:
    """Returns processor, cores, memory, load and versions, as JSON values."""
    from transfer.machine import cpu_flags, usable_memory
    from transfer.models.precision import AMX, AVX512

    packages = ("tensorflow", "keras", "numpy", "torch", "fastai")
    return {
        "processor": _processor(),
        "bfloat16_units": sorted(cpu_flags() & {AMX, AVX512}),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gb": round(usable_memory() / 1e9, 1),
        # Well below 1 on a machine that had nothing else to do.
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version for name in packages if (version := _version(name))},
    }


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    names = {key.strip(): value.strip() for key, value in values.items()}
    if "model name" not in names:
        return platform.machine()
    numbers = [f"{key} {names[key]}" for key in ("cpu family", "model") if key in names]
    return f"{names['model name']} ({', '.join(numbers)})"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def measure_matrix_peak(repeats: int) -> float:
    """Returns operations/s of the fastest of some float32 matrix products.

    A product of two n x n matrices counts as 2 n^3 operations.
    """
    import tensorflow as tf

    matrix = tf.random.stateless_uniform((_MATRIX_SIDE, _MATRIX_SIDE), (0, 0))
    best = float("inf")
    for _ in range(2 + repeats):
        started = time.perf_counter()
        tf.linalg.matmul(matrix, matrix).numpy()
        best = min(best, time.perf_counter() - started)
    return 2 * _MATRIX_SIDE**3 / best


def measure_memory(repeats: int) -> float:
    """Returns bytes/s of the fastest of some sums of two arrays that no cache holds.

    Two are read and one of them is written, as in McCalpin's https://www.cs.virginia.edu/stream/.
    """
    import tensorflow as tf

    array = tf.ones(_ARRAY_BYTES // 4)
    total = tf.Variable(array)
    best = float("inf")
    for _ in range(2 + repeats):
        started = time.perf_counter()
        total.assign_add(array, read_value=False)
        best = min(best, time.perf_counter() - started)
    return 3 * _ARRAY_BYTES / best
