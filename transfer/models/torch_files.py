"""PyTorch's weights files (`.pth`), read without PyTorch and without running anything.

Such a file is a pickle, and a pickle may call any function. The unpickler here knows tensors
alone: whatever else a file asks for ends the reading.
"""

import math
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from transfer.errors import InputError

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # torch/serialization.py, the format before 1.6
_MAX_STORAGES, _MAX_BYTES = 10_000, 1 << 30
_DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    size: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: Any, strides: Any, *others: Any
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _StateDict(OrderedDict):
    """Takes the place of OrderedDict, with nothing of PyTorch's metadata."""

    def __setstate__(self, state: Any) -> None:
        pass


_KNOWN = {
    ("collections", "OrderedDict"): _StateDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    **{("torch", name): name for name in _DTYPES},
}


class _TensorUnpickler(pickle.Unpickler):
    """Builds dictionaries, numbers and descriptions of tensors; nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name}, which is no tensor"[:200])
        return _KNOWN[module, name]

    def persistent_load(self, identifier: Any) -> _Storage:
        kind, dtype, key, _, size, *_ = identifier
        if kind != "storage" or dtype not in _DTYPES or not 0 <= int(size) <= _MAX_BYTES // 8:
            raise pickle.UnpicklingError("a storage of another kind")
        return _Storage(str(key), np.dtype(_DTYPES[dtype]), int(size))


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a `.pth` file in the format before PyTorch 1.6.

    Args:
        path: of a dictionary of tensors, as `torch.save(model.state_dict(), path)` wrote it.

    Returns:
        By name, arrays of float32 or int64.

    Raises:
        InputError: the file is damaged, of another format, or asks for anything but tensors.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except InputError:
        raise
    except Exception as error:  # pickle raises many kinds for a file that is none
        raise _refusal(path, str(error) or type(error).__name__) from error


def _read(file: IO[bytes]) -> dict[str, np.ndarray]:
    head = [_TensorUnpickler(file).load() for _ in range(3)]
    if head[:2] != [_MAGIC, _PROTOCOL] or not cast(dict, head[2]).get("little_endian"):
        raise ValueError("another format")
    tensors, keys = _TensorUnpickler(file).load(), _TensorUnpickler(file).load()
    if not isinstance(tensors, dict) or not all(isinstance(t, _Tensor) for t in tensors.values()):
        raise ValueError("something besides a dictionary of tensors")
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if len(keys) > _MAX_STORAGES or set(keys) != set(storages):
        raise ValueError("storages that no tensor names")
    values = {key: _read_storage(file, storages[key]) for key in keys}
    return {
        str(name): _view(values[tensor.storage.key], tensor) for name, tensor in tensors.items()
    }


def _read_storage(file: IO[bytes], storage: _Storage) -> np.ndarray:
    size = int.from_bytes(file.read(8), "little")
    content = file.read(storage.size * storage.dtype.itemsize)
    if size != storage.size or len(content) != size * storage.dtype.itemsize:
        raise ValueError(f"{size:,} numbers where {storage.size:,} should be")
    return np.frombuffer(content, storage.dtype)


def _view(values: np.ndarray, tensor: _Tensor) -> np.ndarray:
    # Strides count elements. No element lies outside the storage, and no array is larger than it.
    if len(tensor.shape) != len(tensor.strides):
        raise ValueError("a tensor with a stride too many or too few")
    if min((*tensor.shape, *tensor.strides, tensor.offset), default=0) < 0:
        raise ValueError("a tensor of negative size")
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((count - 1) * stride for count, stride in steps)
    if math.prod(tensor.shape) > len(values) or last >= len(values):
        raise ValueError("a tensor larger than its storage")
    return np.lib.stride_tricks.as_strided(
        values[tensor.offset :],
        tensor.shape,
        [stride * values.itemsize for stride in tensor.strides],
        writeable=False,
    )


def _refusal(path: Path, found: str) -> InputError:
    return InputError(f"{path} should be a dictionary of tensors of PyTorch. Received: {found}.")
