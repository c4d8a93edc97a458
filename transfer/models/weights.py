"""Where a backbone's weights come from: Keras's cache, the download, this package, or a file.

"auto" takes the first that there is and says which; an explicit choice is exact or an
error that names every place tried.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer.errors import InputError
from transfer.models import pretrained
from transfer.models.backbones import build_backbone, get_backbone
from transfer.models.pretrained import BUNDLED, FASHION
from transfer.models.weight_files import read_weights
from transfer.storage.cache import keras_home
from transfer.storage.downloads import DownloadError, download, is_offline

if TYPE_CHECKING:
    import keras

KINDS = ("imagenet", BUNDLED, FASHION, "file", "none")  # what a backbone can start from

# MobileNetV2 has ImageNet weights for each of these input sizes; Keras takes 224's for others.
_MOBILENETV2_SIZES = (96, 128, 160, 192, 224)


@dataclass(frozen=True)
class Weights:
    """What a backbone starts from."""

    name: str  # one of `KINDS`
    provenance: str  # one printable line

    @property
    def pretrained(self) -> bool:
        """Whether the backbone knows anything yet."""
        return self.name != "none"


def load_backbone(
    name: str, image_size: int, weights: str = "auto", *, offline: bool = False
) -> tuple["keras.Model", Weights]:
    """Builds a backbone and gives it its weights.

    Args:
        name: a row of `BACKBONES`.
        image_size: side of the square input, in pixels.
        weights: "auto", "imagenet", "bundled", "fashion", "none" or the path of a weights file.
        offline: never use the network.

    Returns:
        The backbone, and what its weights are.

    Raises:
        InputError: the weights asked for are not to be had, or do not fit the backbone.
    """
    backbone = build_backbone(name, image_size)
    if weights == "none":
        return backbone, Weights("none", "random weights, as asked for (--weights none)")
    if weights in (BUNDLED, FASHION):
        return backbone, _load_embedded(backbone, name, weights)
    if weights not in ("auto", "imagenet"):
        path = Path(weights)
        if not path.is_file():
            raise InputError(
                f"--weights should be auto, imagenet, bundled, fashion, none or the path of a "
                f"file. Received: {weights!r}, which is not there."
            )
        _load_file(backbone, name, path)
        return backbone, Weights("file", f"weights from {path.resolve()}")
    try:
        path = _load_imagenet(backbone, name, image_size, offline)
    except InputError as error:
        if weights == "imagenet":
            raise InputError(
                f"{error} Put the file from {imagenet_url(name, image_size)} there, or use "
                "--weights none."
            ) from error
        return backbone, _load_fallback(backbone, name, error)
    return backbone, Weights("imagenet", f"ImageNet weights from {path}")


def _load_fallback(backbone: "keras.Model", name: str, error: InputError) -> Weights:
    # "auto" without ImageNet weights: the package's own, where it has some for this backbone.
    if name in pretrained.available(BUNDLED):
        taken = _load_embedded(backbone, name, BUNDLED)
        return Weights(BUNDLED, f"{taken.provenance}, because there are {error}")
    return Weights("none", f"random weights, because there are {error}")


def _load_embedded(backbone: "keras.Model", name: str, kind: str) -> Weights:
    path = pretrained.find(kind, name)
    read_weights(backbone, path, f"the {kind} weights of {name}")
    return Weights(kind, f"{kind} weights, {pretrained.MADE_FROM[kind]} ({path.name})")


def keras_cache() -> Path:
    """Returns the folder in which Keras keeps weights."""
    return keras_home() / "models"


def imagenet_url(name: str, image_size: int) -> str:
    """Returns the address of Keras's ImageNet weights for this backbone and size."""
    size = image_size if image_size in _MOBILENETV2_SIZES else 224
    return get_backbone(name).weights_url.format(size=size)


def _load_imagenet(backbone: "keras.Model", name: str, image_size: int, offline: bool) -> Path:
    url = imagenet_url(name, image_size)
    path = keras_cache() / url.rsplit("/", 1)[1]
    if path.is_file():
        try:
            _load_checked(backbone, name, path)
            return path
        except InputError:
            pass  # a killed download of an earlier day, set aside: fetch it again
    if is_offline(offline):
        raise InputError(f"no ImageNet weights at {path}, and --offline forbids the download.")
    try:
        download(url, path, **_checksum_argument(get_backbone(name).weights_checksum))
    except DownloadError as error:
        raise InputError(f"no ImageNet weights at {path}, and {error}") from error
    _load_checked(backbone, name, path)
    return path


def _load_checked(backbone: "keras.Model", name: str, path: Path) -> None:
    # Where Keras publishes no checksum, that the file loads completely is the check.
    try:
        checksum = get_backbone(name).weights_checksum
        if checksum is not None:
            _check_checksum(path, checksum)
        _load_file(backbone, name, path)
    except InputError:
        # Set aside, not deleted: it may be somebody's own file.
        path.replace(path.with_name(path.name + ".damaged"))
        raise


def _checksum_argument(checksum: str | None) -> dict[str, Any]:
    if checksum is None:
        return {}
    return {"md5" if len(checksum) == 32 else "sha256": checksum}


def _check_checksum(path: Path, checksum: str) -> None:
    (kind,) = _checksum_argument(checksum)
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, kind).hexdigest()
    if actual != checksum:
        raise InputError(f"{path} should have the checksum {checksum}. Received: {actual}.")


def _load_file(backbone: "keras.Model", name: str, path: Path) -> None:
    read_weights(backbone, path, f"complete weights of {name} without its top")
