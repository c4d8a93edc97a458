"""What is checked before a model file is believed: every weights file goes through here.

Whoever sends a model file may want more than to share weights. So nothing in a file is ever
built or called: the architecture is always our own, and of the file only plain arrays of the
shapes that this architecture has are copied into a fresh file, which alone Keras then reads.
What Keras would never have written is refused by name, for the sake of whoever wants to know.
"""

import errno
import json
import math
import mmap
import re
import reprlib
import shutil
import stat
import struct
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from transfer.errors import DiskError, InputError, disk_error, is_disk_full
from transfer.storage.atomic import scratch_folder

if TYPE_CHECKING:
    import keras

Shapes = dict[str, tuple[int, ...] | None]  # arrays by their path in a file; None is a group
Layer = list[tuple[str, str, str]]  # owner, name and place of each weight
Names = dict[tuple[str, str], list[str | bytes]]  # lists of names by group and attribute

_SUFFIXES = (".keras", ".h5", ".hdf5")
_CONFIG = "config.json"
_WEIGHTS = "model.weights.h5"
_MEMBERS = (_CONFIG, "metadata.json", _WEIGHTS)
# The largest of keras.applications has 2 MB. Parsed, JSON takes up to 25 times its own size.
_MAX_CONFIG_BYTES = 4 << 20
_MAX_OBJECTS = 20_000  # groups and arrays; DenseNet121 with its optimizer has 2,300
_MAX_DEPTH = 32
_MAX_TEXTS_BYTES = 64 << 20  # of one attribute; at the most 14 MB with weights alone
_MAX_NAME = 1000
_LEAST_EPSILON = 1e-5  # that a BatchNorm of these networks adds to its variance

# What a file's description of its model may name, by the module that Keras writes beside it. All
# of it is arithmetic. Nothing here takes code (Lambda, "function"), a path (TFSMLayer, the lookup
# layers) or another package's class.
_CLASSES = {
    module: frozenset(names.split())
    for module, names in {
        "": "__ellipsis__ __keras_tensor__ __numpy__ __slice__",
        "keras": "DTypePolicy Functional Model Sequential",
        "keras.constraints": "MaxNorm MinMaxNorm NonNeg UnitNorm",
        "keras.initializers": "Constant GlorotNormal GlorotUniform HeNormal HeUniform LecunNormal "
        "LecunUniform Ones Orthogonal RandomNormal RandomUniform TruncatedNormal VarianceScaling "
        "Zeros",
        "keras.layers": "Activation AdaptiveAveragePooling2D Add Average AveragePooling2D "
        "BatchNormalization CenterCrop Concatenate Conv2D Cropping2D Dense DepthwiseConv2D "
        "Dropout ELU Flatten GaussianDropout GaussianNoise GlobalAveragePooling2D "
        "GlobalMaxPooling2D GroupNormalization Identity InputLayer LayerNormalization LeakyReLU "
        "MaxPooling2D Maximum Multiply Normalization PReLU Permute RandomBrightness "
        "RandomContrast RandomCrop RandomFlip RandomRotation RandomTranslation RandomZoom ReLU "
        "Rescaling Reshape Resizing SeparableConv2D Softmax SpatialDropout2D Subtract "
        "UnitNormalization UpSampling2D ZeroPadding2D",
        "keras.losses": "BinaryCrossentropy CategoricalCrossentropy CategoricalFocalCrossentropy "
        "SparseCategoricalCrossentropy",
        "keras.metrics": "AUC Accuracy CategoricalAccuracy CategoricalCrossentropy F1Score "
        "Precision Recall SparseCategoricalAccuracy TopKCategoricalAccuracy",
        "keras.mixed_precision": "Policy",
        "keras.optimizers": "Adam AdamW Lion LossScaleOptimizer Nadam RMSprop SGD",
        "keras.optimizers.schedules": "CosineDecay CosineDecayRestarts ExponentialDecay "
        "InverseTimeDecay PiecewiseConstantDecay PolynomialDecay",
        "keras.regularizers": "L1 L1L2 L2",
        "keras.src.applications.convnext": "LayerScale",
        "keras.src.engine.functional": "Functional",
        "keras.src.models.functional": "Functional",
        "keras.src.models.sequential": "Sequential",
        "keras.src.ops.numpy": "Add Divide Flip Mean Multiply Subtract",
    }.items()
}
# How Keras 2 kept arithmetic between layers, `preprocess_input` inside a model or the ReLU of a
# MobileNet: by the names of TensorFlow's functions, and before 2.4 of its operations. Any other
# function may be more than arithmetic.
_FUNCTION_CLASSES, _OPERATION_CLASS = ("SlicingOpLambda", "TFOpLambda"), "TensorFlowOpLayer"
_FUNCTION = re.compile(
    r"(?:__operators__|image|linalg|math|nn|signal)(?:\.[a-z_][a-z0-9_]*)+|"
    r"(?:abs|add|argmax|argmin|cast|clip_by_value|concat|convert_to_tensor|divide|exp|expand_dims|"
    r"fill|gather|identity|maximum|minimum|multiply|negative|norm|one_hot|ones_like|pad|pow|"
    r"reduce_(?:max|mean|min|sum)|repeat|reshape|reverse|round|shape|sigmoid|sign|size|split|sqrt|"
    r"square|squeeze|stack|stop_gradient|strided_slice|subtract|tanh|tile|transpose|truediv|"
    r"unstack|where|zeros_like)"
)
_OPERATIONS = frozenset(
    "Add AddV2 BiasAdd Cast ClipByValue ConcatV2 Div DivNoNan Exp ExpandDims Identity Max Maximum "
    "Mean Min Minimum Mul Neg Pack Pad Pow RealDiv Relu Relu6 Reshape ResizeBicubic ResizeBilinear "
    "ResizeNearestNeighbor ReverseV2 Rsqrt Shape Sigmoid Slice Softmax Split Sqrt Square Squeeze "
    "StridedSlice Sub Sum Tanh Tile Transpose Unpack".split()
)
_ALL_CLASSES = frozenset().union(*_CLASSES.values())
_REPR = reprlib.Repr()
_REPR.maxstring = 80
_short = _REPR.repr
_PATH = re.compile(r"://|^[/\\~]|^[A-Za-z]:[/\\]|(^|[/\\])\.\.([/\\]|$)")


def read_weights(model: "keras.Model", path: Path, expected: str) -> None:
    """Loads the weights in a file from anywhere into a model built by us.

    The model may also be a part of the one in the file: the backbone of a classifier.

    Args:
        model: gets the weights; every one of them must be in the file.
        path: a `.keras` archive, or HDF5 as `save` and `save_weights` write it, today's or Keras
            2's.
        expected: what the file should hold, for the error.

    Raises:
        InputError: the file is missing, damaged or does not fit, or holds anything besides
            weights and a description of layers that Keras computes alone.
    """
    if path.suffix not in _SUFFIXES or not path.is_file():
        raise InputError(
            f"{path} should hold {expected}, in a file {', '.join(_SUFFIXES)}. Received: "
            f"{'another kind of file' if path.is_file() else 'no file'}; name such a file."
        )
    try:
        with scratch_folder() as folder:
            _load(model, path, folder)
        _check_numbers(model, path, expected)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Keras, h5py and zipfile raise many kinds for a file that fails
        # A number of the system's: the place is at fault, not what the file holds.
        if getattr(error, "errno", None) not in (None, errno.ENOENT) or is_disk_full(error):
            raise DiskError(f"{disk_error(error, path)}; mend that.") from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f"{path} should hold {expected}. Received: {reason}; copy it again, or name another."
        ) from error


def _check_numbers(model: "keras.Model", path: Path, expected: str) -> None:
    from keras import ops

    for weight in model.weights:
        value, found = ops.convert_to_numpy(weight), ""
        if not np.isfinite(value).all():
            found = "NaN or infinity"
        elif weight.path.endswith("/moving_variance") and value.min() < -_LEAST_EPSILON:
            found = "a negative number"  # its root is none, and ReLU makes zeros of that
        if found:
            raise InputError(
                f"{path} should hold {expected}. Received: {found} in {weight.path}; name another."
            )


def check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """Checks a `.keras` archive before anything in it is used, its weights excepted.

    Args:
        archive: the opened file.
        path: its path: for its size, and for the error.

    Raises:
        InputError: it is not as Keras writes it, or describes a model with other layers than
            those of the list.
    """

    def refuse(found: str) -> InputError:
        return _refusal(path, f"{', '.join(_MEMBERS)} alone, stored as Keras stores them", found)

    members = archive.infolist()
    names = [member.filename for member in members]
    for member in members:
        if member.filename not in _MEMBERS or names.count(member.filename) > 1:
            raise refuse(f"the member {_short(member.filename)}")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise refuse(f"a link as {member.filename}")
        if member.compress_type != zipfile.ZIP_STORED:
            raise refuse(f"{member.filename} compressed, of {member.file_size:,} bytes")
    if missing := {_CONFIG, _WEIGHTS}.difference(names):
        raise refuse(f"no {min(missing)}")
    total = sum(member.file_size for member in members)
    if total > path.stat().st_size:
        raise refuse(f"{total:,} bytes of members in a file of {path.stat().st_size:,}")
    if archive.getinfo(_CONFIG).file_size > _MAX_CONFIG_BYTES:
        raise refuse(f"a {_CONFIG} of {archive.getinfo(_CONFIG).file_size:,} bytes")
    check_architecture(archive.read(_CONFIG), path)


def check_architecture(text: str | bytes, path: Path) -> None:
    """Checks a file's description of its model, though we never build it.

    Args:
        text: JSON.
        path: where it stood, for the error.

    Raises:
        InputError: it is no JSON, or names a class or a path that has no place in it.
    """
    accepted = "a description of layers of Keras that only compute"
    try:
        if len(text) > _MAX_CONFIG_BYTES:
            raise ValueError(f"{len(text):,} bytes")
        pending = [json.loads(text)]
    except (ValueError, RecursionError) as error:
        raise _refusal(path, accepted, f"{type(error).__name__}: {error}") from error
    while pending:
        value = pending.pop()
        found = _find_foreign(value)
        if found:
            raise _refusal(path, accepted, found)
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _find_foreign(value: object) -> str | None:
    # What is wrong with one value of the description, its own values not looked into.
    if isinstance(value, str):
        return f"the path {_short(value)}" if _PATH.search(value) else None
    if not isinstance(value, dict) or "class_name" not in value:
        return None
    name, module = value["class_name"], value.get("module")
    if not isinstance(name, str) or not isinstance(module, str | None):
        return f"the class {_short(name)} of {_short(module)}"
    if name in (*_FUNCTION_CLASSES, _OPERATION_CLASS):
        called = _called_by(value)
        return (
            None
            if _is_arithmetic(name, called)
            else f"the class {_short(name)} of {_short(called)}"
        )
    # Keras 2 wrote no module; later it lives in a package of its own, tf_keras.
    known = _ALL_CLASSES if module is None else _CLASSES.get(module.removeprefix("tf_"), ())
    if name not in known:
        return f"the class {_short(name)}{f' of {_short(module)}' if module else ''}"
    registered = value.get("registered_name")
    if registered not in (None, name):  # what somebody registered would win over the class
        return f"{_short(name)} registered as {_short(registered)}"
    return None


def _called_by(layer: dict) -> str:
    # The name of the function or operation that a layer of Keras 2 is made of, or what is there.
    config = layer.get("config")
    config = config if isinstance(config, dict) else {}
    node = config.get("node_def")
    called = node.get("op") if isinstance(node, dict) else config.get("function")
    return called if isinstance(called, str) and called.isprintable() else _short(called)


def _is_arithmetic(name: str, called: str) -> bool:
    if name == _OPERATION_CLASS:
        return called in _OPERATIONS
    return _FUNCTION.fullmatch(called) is not None


def check_hdf5(file: h5py.File, path: Path, size: int) -> Shapes:
    """Lists an HDF5 file's groups and arrays, without following a link or reading an array.

    Args:
        file: the opened file.
        path: where it came from, for the error.
        size: its size in bytes. Its arrays together are no larger: nothing is unpacked, shared
            or filled in.

    Returns:
        By its path in the file, without a leading slash, the shape of each array, and None for
        each group.

    Raises:
        InputError: the file holds anything but groups and plain arrays of numbers.
    """
    shapes: Shapes = {}
    seen = {h5py.h5o.get_info(file.id).addr}
    pending, total = [""], 0
    while pending:
        prefix = pending.pop()
        group = file[prefix or "/"]
        for name in group:
            place = f"{prefix}{name}"
            found = _find_oddity(group, name, seen)
            if found is None and len(seen) > _MAX_OBJECTS:
                found = f"more than {_MAX_OBJECTS:,} objects"
            if found is None and place.count("/") >= _MAX_DEPTH:
                found = f"groups more than {_MAX_DEPTH} deep"
            if found:
                raise _refuse_hdf5(path, f"{found} at {_short(place)}")
            item = group[name]
            if isinstance(item, h5py.Group):
                shapes[place] = None
                pending.append(f"{place}/")
            else:
                shapes[place] = item.shape
                total += _num_bytes(item)
    if total > size:
        raise _refuse_hdf5(path, f"arrays of {total:,} bytes in a file of {size:,}")
    return shapes


def _find_oddity(group: h5py.Group, name: str, seen: set[int]) -> str | None:
    # What is wrong with one member of a group. `seen` are the addresses of all objects before.
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        return f"a link ({type(link).__name__})"
    item = group[name]
    address = h5py.h5o.get_info(item.id).addr
    if address in seen:
        return "a second name for one object"
    seen.add(address)
    if isinstance(item, h5py.Group):
        return None
    if not isinstance(item, h5py.Dataset):
        return "neither a group nor an array"
    if item.is_virtual or item.external:
        return "an array that lies in another file"
    # Keras writes no other layout, and only these can neither be filled in nor unpack to more.
    if item.id.get_create_plist().get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT):
        return "an array in chunks, which may be compressed"
    if item.dtype.kind not in "biuf" or item.shape is None:
        return f"an array of {item.dtype}, not of numbers"
    if item.id.get_storage_size() < _num_bytes(item):
        return f"an array {item.shape} without its numbers"
    return None


def _num_bytes(array: h5py.Dataset) -> int:
    # Not array.nbytes, which counts in 64 bits.
    return math.prod(array.shape) * array.dtype.itemsize


def _unpack(path: Path, folder: Path) -> Path:
    # Returns the HDF5 file: `path` itself, or what a .keras archive holds.
    if path.suffix != ".keras":
        return path
    source = folder / _WEIGHTS
    with zipfile.ZipFile(path) as archive:
        check_archive(archive, path)
        with archive.open(_WEIGHTS) as member, source.open("wb") as file:
            shutil.copyfileobj(member, file)  # to its end, where the checksum is compared
    return source


def _load(model: "keras.Model", path: Path, folder: Path) -> None:
    source = _unpack(path, folder)
    wanted = Counter(tuple(weight.shape) for weight in model.weights)
    with h5py.File(source, "r") as file:
        shapes = check_hdf5(file, path, source.stat().st_size)
        names: Names = {}
        target = folder / "plain.weights.h5"
        if _name_keys(file) or "model_weights" in shapes:
            names = _read_names(file, shapes, path, _longest_text(source))
            layers = legacy_layers(names, shapes)
            own = [len(layer.weights) for layer in model.layers if layer.weights]
            if [len(weights) for weights in layers if weights] != own:
                model.set_weights(_read_part(model, layers, file, shapes, wanted))
                return
            target = folder / "plain.h5"
        root = _legacy_root(shapes) if names else _find_model(shapes, wanted)
        _copy_plain(file, root, shapes, wanted, names, target)
    model.load_weights(target)


def _copy_plain(
    file: h5py.File, root: str, shapes: Shapes, wanted: Counter, names: Names, target: Path
) -> None:
    # Writes the model's weights out of the file into one that Keras may read.
    with h5py.File(target, "w") as plain:
        _copy_arrays(file, root, shapes, wanted, plain)
        for (place, key), texts in names.items():
            plain.require_group(f"/{place[len(root) :]}").attrs[key] = texts


def _read_part(
    model: "keras.Model", layers: list[Layer], file: h5py.File, shapes: Shapes, wanted: Counter
) -> list[np.ndarray]:
    # The model's weights, in its order, out of a classifier that has it nested in a layer of its
    # own or spread over its first layers. Only what is taken is read.
    paths = find_part([weight.path for weight in model.weights], layers)
    for places in paths:
        found = [shapes.get(place) for place in places]
        if found == [tuple(weight.shape) for weight in model.weights]:
            return [file[place][()] for place in places]
    raise ValueError("not an array of its shape for each weight of this model")


def _copy_arrays(
    file: h5py.File, root: str, shapes: Shapes, wanted: Counter, plain: h5py.File
) -> None:
    # An array of any other shape is never read, so none is larger than the model's largest.
    mine = {
        name: shape for name, shape in shapes.items() if shape in wanted and name.startswith(root)
    }
    if not wanted <= Counter(mine.values()):
        raise ValueError("not an array of its shape for each weight of this model")
    for name in mine:
        plain.create_dataset(name[len(root) :], data=file[name][()])


def _find_model(shapes: Shapes, wanted: Counter) -> str:
    # Returns the path of the innermost model in the file that has arrays of all these shapes:
    # "" for the whole file, "layers/functional/" for the backbone of one of our classifiers.
    found: dict[str, Counter] = defaultdict(Counter)
    for name, shape in shapes.items():
        parts = name.split("/")
        found[""][shape] += 1
        for index, part in enumerate(parts[:-2]):
            if part == "layers":
                found["/".join(parts[: index + 2]) + "/"][shape] += 1
    fitting = [root for root, held in found.items() if wanted <= held]
    return min(fitting, key=lambda root: found[root].total(), default="")


# --- Keras 2's layout: attributes of groups name the layers and their weights, in order ---------


def _legacy_root(shapes: Shapes) -> str:
    return "model_weights/" if "model_weights" in shapes else ""  # a whole model, or its weights


def _name_keys(group: h5py.Group) -> list[str]:
    # Keras splits a list that is too long for one attribute: layer_names0, layer_names1, ...
    return [key for key in group.attrs if re.fullmatch("(layer|weight)_names[0-9]*", key)]


def legacy_layers(names: Names, shapes: Shapes) -> list[Layer]:
    """Returns what each layer of a file of Keras 2 holds, in the file's order.

    A layer that is a model has the weights of all of its layers: first all that trained, then the
    others.

    Args:
        names: lists of names by group and attribute.
        shapes: of the arrays, by their paths.

    Returns:
        For each layer: (name of the layer that a weight belongs to, name of the weight, path of
        its array in the file).
    """
    root = _legacy_root(shapes)
    layers = []
    for name in _ordered_texts(names, root, "layer_names"):
        group, weights = f"{root}{name}/", []
        for text in _ordered_texts(names, group, "weight_names"):
            *owner, weight = text.split("/")
            weights.append(("/".join(owner), weight.split(":")[0], f"{group}{text}"))
        layers.append(weights)
    return layers


def _ordered_texts(names: Names, place: str, kind: str) -> list[str]:
    # Long lists are split over layer_names0, layer_names1, ...
    keys = [key for group, key in names if group == place and key.startswith(kind)]
    keys.sort(key=lambda key: int(key.removeprefix(kind) or 0))
    texts = [text for key in keys for text in names[place, key]]
    return [text.decode() if isinstance(text, bytes) else text for text in texts]


def find_part(weight_paths: Sequence[str], layers: list[Layer]) -> Iterator[list[str]]:
    """Yields where a model's weights may lie in a classifier, the likeliest first.

    Layers are known by their names, which `keras.applications` has kept over the years; where it
    has not, by their order. Whether the shapes fit is for the caller to see.

    Args:
        weight_paths: of the model's weights, "block1_conv/kernel", in its order.
        layers: of the file, as `legacy_layers` returns them.

    Yields:
        Paths of arrays in the file, one for each of `weight_paths`.
    """
    mine = [path.split("/")[-2:] for path in weight_paths]
    together = [weight for layer in layers for weight in layer]
    for weights in (*layers, together):
        by_name = {(owner.split("/")[-1], name): place for owner, name, place in weights}
        found = [_find_weight(by_name, owner, name) for owner, name in mine]
        if len(weights) >= len(mine) and None not in found and len(set(found)) == len(found):
            yield [place for place in found if place]
    for weights in (*layers, together):
        own, theirs = _by_owner(mine), _by_owner(weights)
        if len(own) <= len(theirs):
            pairs = dict(zip(own, theirs, strict=False))
            by_name = {(owner, name): place for owner, name, place in weights}
            found = [_find_weight(by_name, pairs[owner], name) for owner, name in mine]
            if None not in found:
                yield [place for place in found if place]


def _by_owner(weights: Iterable[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(owner for owner, *_ in weights))


def _find_weight(places: Mapping[tuple[str, str], str], owner: str, name: str) -> str | None:
    # Keras 2 called the kernel of a depthwise convolution so.
    old = places.get((owner, "depthwise_kernel")) if name == "kernel" else None
    return places.get((owner, name), old)


def _read_names(file: h5py.File, shapes: Shapes, path: Path, longest: int) -> Names:
    if "model_config" in file.attrs:
        check_architecture(_read_texts(file, "model_config", path, longest)[0], path)
    names: Names = {}
    left = len(shapes)  # each name is that of an object
    for place in ("", *(f"{name}/" for name, shape in shapes.items() if shape is None)):
        group = file[place or "/"]
        for key in _name_keys(group) if place.startswith(_legacy_root(shapes)) else ():
            names[place, key] = texts = _read_texts(group, key, path, longest)
            left -= len(texts)
            if left < 0 or any(len(text) > _MAX_NAME for text in texts):
                raise _refuse_hdf5(path, f"more or longer names than objects as {key}")
    return names


def _read_texts(group: h5py.Group, key: str, path: Path, longest: int) -> list[str | bytes]:
    # Each text of an attribute may be the same one of the heap, so all may be as the longest.
    attribute = group.attrs.get_id(key)
    count, kind = math.prod(attribute.shape), h5py.check_string_dtype(attribute.dtype)
    size = count * (longest if kind and kind.length is None else attribute.dtype.itemsize)
    if (count and kind is None) or size > _MAX_TEXTS_BYTES:
        raise _refuse_hdf5(path, f"up to {size:,} bytes of {attribute.dtype} as {key}")
    return list(np.atleast_1d(group.attrs[key]))


def _longest_text(source: Path) -> int:
    # No text of its own length is longer than the heap it lies in, and each heap says its size.
    # HDF5 File Format Specification 3.0, III.E: "GCOL", version, 3 reserved bytes, size.
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        starts = re.finditer(rb"GCOL.{4}(.{8})", content, re.DOTALL)
        return max((struct.unpack("<Q", found[1])[0] for found in starts), default=0)


def _refuse_hdf5(path: Path, found: str) -> InputError:
    return _refusal(path, "whole arrays of numbers in groups, as Keras writes them", found)


def _refusal(path: Path, accepted: str, found: str) -> InputError:
    return InputError(
        f"{path} should hold {accepted}. Received: {found}. Do not use it; ask its author for "
        "the weights alone, from model.save_weights('name.weights.h5')."
    )
