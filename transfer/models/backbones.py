"""The backbones: one row each, and how a row becomes a Keras model.

A row is plain data and needs no TensorFlow to read, so the command line can list
the names. A new backbone is one new row; the tests run over the table.
"""

import pkgutil
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transfer.errors import InputError

if TYPE_CHECKING:
    import keras

_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"

# ImageNet's channel means and deviations, RGB in [0, 255], from Keras's source:
# keras/src/applications/imagenet_utils.py
_CAFFE_MEANS = (123.68, 116.779, 103.939)
_TORCH_MEANS = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_TORCH_VARIANCES = ((0.229 * 255) ** 2, (0.224 * 255) ** 2, (0.225 * 255) ** 2)


@dataclass(frozen=True)
class Backbone:
    """One row of `BACKBONES`."""

    builder: str  # function in keras.applications, or "module:function"
    family: str | None  # module in keras.applications that holds its preprocess_input, if one does
    # "tf": [-1, 1]; "lite": (x - 127) / 128; "caffe": BGR less means; "torch": standardised;
    # "none": inside
    scaling: str
    block: str  # regular expression; its match in a layer's name is the name of the layer's block
    bfloat16_training: bool  # whether mixed bfloat16 trains faster on a CPU that has the units
    bfloat16_inference: bool  # whether it infers faster on one
    scratch_learning_rate: float  # of Adam, from random weights
    weights_url: str | None  # ImageNet weights without the top, as Keras names them, if it has any
    weights_checksum: str | None  # MD5 or SHA-256 as in Keras's source; None where it has none
    channels: int = 3  # that it sees: 1 for gray, 3 for RGB
    smallest_size: int = 32  # of the images, in pixels
    # Whether it trains faster on such a CPU with gradients of 1x1 convolutions in bfloat16 alone.
    bfloat16_gradients: bool = False


def _small_network(
    builder: str, block: str, scratch_learning_rate: float, bfloat16: bool = False
) -> Backbone:
    # One of `small_networks.py`: gray images of their own size, and no pretrained weights.
    return Backbone(
        builder=f"transfer.models.small_networks:{builder}",
        family=None,
        scaling="tf",
        block=block,
        bfloat16_training=bfloat16,
        bfloat16_inference=bfloat16,
        scratch_learning_rate=scratch_learning_rate,
        weights_url=None,
        weights_checksum=None,
        channels=1,
        smallest_size=16,
    )


BACKBONES: dict[str, Backbone] = {
    "mobilenetv2": Backbone(
        builder="MobileNetV2",
        family="mobilenet_v2",
        scaling="tf",
        block=r"^(expanded_conv|block_\d+|Conv_1)",
        bfloat16_training=False,
        bfloat16_inference=True,
        scratch_learning_rate=2e-3,
        weights_url=_URL + "mobilenet_v2/"
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{size}_no_top.h5",
        weights_checksum=None,
        bfloat16_gradients=True,
    ),
    "vgg16": Backbone(
        builder="VGG16",
        family="vgg16",
        scaling="caffe",
        block=r"^block\d",
        bfloat16_training=True,
        bfloat16_inference=True,
        scratch_learning_rate=1e-4,
        weights_url=_URL + "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        weights_checksum="6d6bbae143d832006294945121d1f1fc",
    ),
    "mobilenetv3small": Backbone(
        builder="MobileNetV3Small",
        family="mobilenet_v3",
        scaling="none",
        block=r"^(expanded_conv_\d+|expanded_conv|conv_1)",
        bfloat16_training=False,
        bfloat16_inference=False,
        scratch_learning_rate=2e-3,
        weights_url=_URL + "mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
        weights_checksum="d3e8ec802a04aa4fc771ee12a9a9b836",
    ),
    "mobilenetv3large": Backbone(
        builder="MobileNetV3Large",
        family="mobilenet_v3",
        scaling="none",
        block=r"^(expanded_conv_\d+|expanded_conv|conv_1)",
        bfloat16_training=False,
        bfloat16_inference=False,
        scratch_learning_rate=2e-3,
        weights_url=_URL + "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
        weights_checksum="07fb09a5933dd0c8eaafa16978110389",
        bfloat16_gradients=True,
    ),
    "efficientnetv2b0": Backbone(
        builder="EfficientNetV2B0",
        family="efficientnet_v2",
        scaling="none",
        block=r"^(block\d[a-z]|top)",
        bfloat16_training=False,
        bfloat16_inference=True,
        scratch_learning_rate=1e-3,
        weights_url=_URL + "efficientnet_v2/efficientnetv2-b0_notop.h5",
        weights_checksum="893217f2bb855e2983157299931e43ff",
        bfloat16_gradients=True,
    ),
    "resnet50v2": Backbone(
        builder="ResNet50V2",
        family="resnet_v2",
        scaling="tf",
        block=r"^(conv[2-5]_block\d+|post)",
        bfloat16_training=True,
        bfloat16_inference=True,
        scratch_learning_rate=1e-3,
        weights_url=_URL + "resnet/resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        weights_checksum="fac2f116257151a9d068a22e544a4917",
    ),
    "densenet121": Backbone(
        builder="DenseNet121",
        family="densenet",
        scaling="torch",
        block=r"^(conv[2-5]_block\d+|pool\d)",
        bfloat16_training=False,
        bfloat16_inference=True,
        scratch_learning_rate=1e-3,
        weights_url=_URL + "densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        weights_checksum="30ee3e1110167f948a6b9946edeeb738",
        bfloat16_gradients=True,
    ),
    "convnexttiny": Backbone(
        builder="ConvNeXtTiny",
        family="convnext",
        scaling="none",
        block=r"^convnext_tiny_(stage_\d_block_\d|downsampling_block_\d)",
        bfloat16_training=True,
        bfloat16_inference=False,
        scratch_learning_rate=5e-4,
        weights_url=_URL + "convnext/convnext_tiny_notop.h5",
        weights_checksum="d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
    ),
    "efficientnetlite0": Backbone(
        builder="transfer.models.efficientnet_lite:build_efficientnet_lite0",
        family=None,
        scaling="lite",
        block=r"^(block\d[a-d]|top)",
        bfloat16_training=False,
        bfloat16_inference=True,
        scratch_learning_rate=1e-3,
        weights_url=None,
        weights_checksum=None,
        bfloat16_gradients=True,
    ),
    "mlp": _small_network("build_mlp", r"^dense\d", 1e-3),
    "cnn32": _small_network("build_cnn32", r"^(conv|dense)\d", 2e-3),
    "cnn64": _small_network("build_cnn64", r"^(conv|dense)\d", 2e-3),
    "cnn32-64": _small_network("build_cnn32_64", r"^(conv|dense)\d", 2e-3),
    "lenet5": _small_network("build_lenet5", r"^(conv|dense)\d", 1e-3),
    "resnet9": _small_network("build_resnet9", r"^stage\d_(conv|block)", 2e-3, bfloat16=True),
}


def get_backbone(name: str) -> Backbone:
    """Returns the row of `BACKBONES`.

    Raises:
        InputError: there is no such row.
    """
    if name not in BACKBONES:
        raise InputError(
            f"backbone should be one of {', '.join(BACKBONES)}. Received: backbone={name!r}."
        )
    return BACKBONES[name]


def check_image_size(name: str, image_size: int) -> None:
    """Raises `InputError` where a backbone cannot see images so small, or there is no such row."""
    smallest = get_backbone(name).smallest_size
    if image_size < smallest:
        raise InputError(
            f"--image-size should be at least {smallest} for {name}. Received: {image_size}."
        )


def build_backbone(name: str, image_size: int | None) -> "keras.Model":
    """Builds the network without its top and with random weights.

    Args:
        name: a row of `BACKBONES`.
        image_size: side of the square input, in pixels, or None for any size.

    Returns:
        A model named "backbone": (B, image_size, image_size, channels), scaled as the row says,
        to (B, h, w, features).

    Raises:
        InputError: there is no such row, or the images are too small for it.
    """
    if image_size is not None:
        check_image_size(name, image_size)
    builder = get_backbone(name).builder
    build = pkgutil.resolve_name(builder if ":" in builder else f"keras.applications:{builder}")
    shape = (image_size, image_size, get_backbone(name).channels)
    backbone = build(include_top=False, weights=None, input_shape=shape)
    backbone.name = "backbone"  # as an argument, EfficientNetV2's builder refuses it
    return backbone


def scale(name: str, images: "keras.KerasTensor") -> "keras.KerasTensor":
    """Adds the layers that turn RGB in [0, 255] into what the backbone was trained on.

    The same function as the family's `preprocess_input` in keras.applications, as layers,
    so that a saved model needs no second preprocessing.
    """
    import keras

    scaling = get_backbone(name).scaling
    if get_backbone(name).channels == 1:
        images = keras.ops.mean(images, axis=-1, keepdims=True)  # of gray ones it changes nothing
    if scaling == "tf":
        return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scaling")(images)
    if scaling == "lite":
        return keras.layers.Rescaling(1 / 128, offset=-127 / 128, name="scaling")(images)
    if scaling == "torch":
        return keras.layers.Normalization(
            mean=_TORCH_MEANS, variance=_TORCH_VARIANCES, name="scaling"
        )(images)
    if scaling == "caffe":
        centred = keras.layers.Normalization(
            mean=_CAFFE_MEANS, variance=(1.0, 1.0, 1.0), name="scaling"
        )(images)
        return keras.ops.flip(centred, axis=-1)  # RGB to BGR
    return images  # the network scales by itself


def split_blocks(name: str, backbone: "keras.Model") -> list[list["keras.Layer"]]:
    """Groups the layers that have weights into the backbone's blocks, from input to output.

    Layers before the first named block (the stem) form a block of their own; layers without
    a block's name (the last normalisation of DenseNet) belong to the block before them.
    """
    pattern = re.compile(get_backbone(name).block)
    blocks: list[list] = [[]]
    current = None
    for layer in backbone.layers:
        match = pattern.match(layer.name)
        if match and match.group() != current:
            current = match.group()
            blocks.append([])
        if layer.weights:
            blocks[-1].append(layer)
    return [block for block in blocks if block]


def outputs_by_depth(name: str, backbone: "keras.Model") -> list["keras.KerasTensor"]:
    """Returns the output of the last block at each resolution, from a quarter of the image's down.

    The last layer of a network is the one that its pretraining shapes most; what the blocks
    before it put out transfers better where the images of both are far apart.
    """
    block = re.compile(get_backbone(name).block)
    of_blocks = {}
    for layer in backbone.layers:
        match = block.match(layer.name)
        if match and len(layer.output.shape) == 4:
            of_blocks[match.group()] = layer.output
    by_side = {output.shape[1]: output for output in of_blocks.values()}
    final, quarter = backbone.output.shape[1], backbone.input.shape[1] // 4
    before = [output for side, output in by_side.items() if final < side <= quarter]
    return [*before, backbone.output]
