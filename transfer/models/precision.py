"""Which number format a computation uses, from one short rule for training and one for inference.

Training: where a CPU has AMX tiles or AVX512-BF16, networks of large dense convolutions train
faster in bfloat16 and networks of depthwise convolutions (MobileNetV2) slower. On two cores of an
AMD EPYC (Zen 4, AVX512-BF16) an epoch of all layers of VGG16 took 70 s in float32 and 41 s in
bfloat16, n = 1 (`python train.py --backbone vgg16 --image-size 64 --limit 1500 --head-epochs 1
--finetune-epochs 1 --precision float32`, or bfloat16); two of ResNet-9 with `--limit 6000` 47 s
and 32 s.

Some networks that train in float32 there have gradients of 1x1 convolutions computed in bfloat16:
two products of matrices, a third of all that a step computes. The forward pass, the other gradients
and what is added up stay float32. On the same machine, in one run, a step of MobileNetV2 (96
pixels) was 1.10 times as fast as with these products in float32, one of EfficientNet-Lite0 and of
DenseNet121 (64 pixels) 1.07 times (`python -m benchmarks --only steps`). docs/training.md has what
it does to the accuracy.

Inference with BatchNorm folded: AVX512-BF16 is enough. On two cores of an AMD EPYC with it, in one
run, bfloat16 was 1.6 times as fast as float32 for MobileNetV2 (96 pixels), 1.8 for VGG16, 1.3 for
ResNet50V2, 1.1 for DenseNet121 and EfficientNetV2B0 (64 pixels), but 0.9 for MobileNetV3Small and
1.0 for ConvNeXtTiny.

A GPU or TPU has the units for both.
"""

import contextlib
from collections.abc import Iterator

from transfer.machine import cpu_has, has_accelerator
from transfer.models.backbones import get_backbone

# Weights are float32 in all of them. The first two are Keras's dtype policies.
FLOAT32, BFLOAT16, BFLOAT16_GRADIENTS = POLICIES = (
    "float32",
    "mixed_bfloat16",
    "bfloat16_gradients",
)
AMX, AVX512 = "amx_bf16", "avx512_bf16"  # as Linux names the units


def choose_precision(backbone: str, requested: str = "auto") -> tuple[str, str]:
    """Picks the number format of training.

    Args:
        backbone: a row of `BACKBONES`.
        requested: "auto", "float32" or "bfloat16".

    Returns:
        One of `POLICIES`, and the reason.
    """
    import keras  # the names above are read where nothing computes

    if requested != "auto":
        return _as_asked(requested)
    if has_accelerator():
        return BFLOAT16, "a GPU or TPU computes in bfloat16"
    if not cpu_has(AMX, AVX512):
        return FLOAT32, "this CPU has neither AMX nor AVX512-BF16"
    if get_backbone(backbone).bfloat16_training:
        return BFLOAT16, f"{backbone} trains faster in bfloat16 on this CPU"
    if get_backbone(backbone).bfloat16_gradients and keras.backend.backend() == "tensorflow":
        return BFLOAT16_GRADIENTS, "float32 but for gradients of 1x1 convolutions, faster so"
    return FLOAT32, f"{backbone} trains faster in float32 on a CPU"


def gradient_dtype(policy: str) -> str:
    """Returns what the gradients of 1x1 convolutions are computed from under one of `POLICIES`."""
    return "bfloat16" if policy == BFLOAT16_GRADIENTS else "float32"


def choose_inference_precision(backbone: str, requested: str = "auto") -> tuple[str, str]:
    """Picks the Keras dtype policy of passes without gradients, BatchNorm folded.

    Arguments as of `choose_precision`; returns "float32" or "mixed_bfloat16", and the reason.
    """
    if requested != "auto":
        return _as_asked(requested)
    if has_accelerator():
        return BFLOAT16, "a GPU or TPU computes in bfloat16"
    if not cpu_has(AMX, AVX512):
        return FLOAT32, "this CPU has neither AMX nor AVX512-BF16"
    if get_backbone(backbone).bfloat16_inference:
        return BFLOAT16, f"this CPU has {'AMX' if cpu_has(AMX) else 'AVX512-BF16'}"
    return FLOAT32, f"bfloat16 gains {backbone} nothing on a CPU"


def _as_asked(requested: str) -> tuple[str, str]:
    policy = BFLOAT16 if requested == "bfloat16" else FLOAT32
    return policy, f"as asked for (--precision {requested})"


@contextlib.contextmanager
def dtype_policy(policy: str) -> Iterator[None]:
    """Builds layers under one of `POLICIES` and puts Keras's dtype policy of before back."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(FLOAT32 if policy == BFLOAT16_GRADIENTS else policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
