"""The networks everybody tries on small gray images, trained from random weights.

Each is the whole of its network but the last layer, so that the classifier's own head ends it as
it ends a pretrained backbone: what a dense layer puts out is a map of one position. Their builders
take what those of `keras.applications` take; their recipes stand in `transfer/recipes.py`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

Shape = tuple[int, int, int]
_MOMENTUM, _EPSILON = 0.9, 1e-5  # BatchNorm's, as PyTorch has them


def build_mlp(include_top: bool, weights: None, input_shape: Shape) -> "keras.Model":
    """Builds a plain dense network of one hidden layer of 128 units.

    Args:
        include_top: False: the last layer is the classifier's.
        weights: None: there are none.
        input_shape: (height, width, channels).

    Returns:
        Images (B, height, width, channels), float32 in [-1, 1], to features (B, 1, 1, 128).
    """
    import keras

    inputs = keras.Input(input_shape)
    return keras.Model(inputs, _add_dense(inputs, 128))


def build_cnn32(include_top: bool, weights: None, input_shape: Shape) -> "keras.Model":
    """Builds a 3x3 convolution of 32 filters, a pool and a dense layer of 32 units.

    Arguments as of `build_mlp`; to features (B, 1, 1, 32).
    """
    return _build_one_convolution(32, input_shape)


def build_cnn64(include_top: bool, weights: None, input_shape: Shape) -> "keras.Model":
    """Builds the same with 64 filters; arguments as of `build_mlp`."""
    return _build_one_convolution(64, input_shape)


def build_cnn32_64(include_top: bool, weights: None, input_shape: Shape) -> "keras.Model":
    """Builds two 3x3 convolutions, of 32 and 64 filters, each with a pool, and 128 dense units.

    Arguments as of `build_mlp`; to features (B, 1, 1, 128).
    """
    import keras

    inputs = x = keras.Input(input_shape)
    for number, filters in enumerate((32, 64), 1):
        x = keras.layers.Conv2D(
            filters, 3, padding="same", activation="relu", name=f"conv{number}"
        )(x)
        x = keras.layers.MaxPooling2D(3, 2, name=f"pool{number}")(x)
    return keras.Model(inputs, _add_dense(x, 128))


def build_lenet5(include_top: bool, weights: None, input_shape: Shape) -> "keras.Model":
    """Builds LeNet-5 with BatchNorm and ReLU: 6 and 16 filters of 5x5, then 128 and 32 units.

    LeCun et al. 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf, has 120 and 84 units,
    and sigmoids. Arguments as of `build_mlp`; to features (B, 1, 1, 32).
    """
    import keras

    inputs = x = keras.Input(input_shape)
    for number, (filters, padding) in enumerate(((6, "same"), (16, "valid")), 1):
        x = _convolve(x, f"conv{number}", filters, kernel_size=5, padding=padding)
        x = keras.layers.MaxPooling2D(name=f"pool{number}")(x)
    return keras.Model(inputs, _add_dense(x, 128, 32))


def build_resnet9(include_top: bool, weights: None, input_shape: Shape) -> "keras.Model":
    """Builds a residual network of nine layers, the last one included.

    A convolution, then three stages of a convolution, a pool and a residual block of two
    convolutions, each of them 3x3 with BatchNorm and ReLU; after David Page's network of
    https://dawn.cs.stanford.edu/benchmark/CIFAR10/train.html, narrower, for processors.

    Arguments as of `build_mlp`; to (B, height / 8, width / 8, 256).
    """
    import keras

    inputs = keras.Input(input_shape)
    x = _convolve(inputs, "stem", 32)
    for number, filters in enumerate((64, 128, 256), 1):
        x = _convolve(x, f"stage{number}_conv", filters)
        x = keras.layers.MaxPooling2D(name=f"stage{number}_pool")(x)
        y = _convolve(x, f"stage{number}_block_1", filters)
        y = _convolve(y, f"stage{number}_block_2", filters)
        x = keras.layers.Add(name=f"stage{number}_add")([x, y])
    return keras.Model(inputs, x)


def _build_one_convolution(filters: int, input_shape: Shape) -> "keras.Model":
    import keras

    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(filters, 3, activation="relu", name="conv1")(inputs)
    x = keras.layers.MaxPooling2D(name="pool1")(x)
    return keras.Model(inputs, _add_dense(x, 32))


def _add_dense(x: "keras.KerasTensor", *units: int) -> "keras.KerasTensor":
    # (B, h, w, channels) to a map of one position, (B, 1, 1, units)
    import keras

    x = keras.layers.Flatten(name="flatten")(x)
    for number, width in enumerate(units, 1):
        x = keras.layers.Dense(width, "relu", name=f"dense{number}")(x)
    return keras.layers.Reshape((1, 1, units[-1]), name="features")(x)


def _convolve(
    x: "keras.KerasTensor", name: str, filters: int, kernel_size: int = 3, padding: str = "same"
) -> "keras.KerasTensor":
    import keras

    x = keras.layers.Conv2D(
        filters,
        kernel_size,
        padding=padding,
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    x = keras.layers.BatchNormalization(momentum=_MOMENTUM, epsilon=_EPSILON, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)
