"""Which number format a computation uses, from one short rule.

On a CPU with AMX tiles, networks of large dense convolutions (VGG16) train several times faster
in bfloat16, and networks of depthwise convolutions (MobileNetV2) slower. On a CPU without them
bfloat16 costs more conversions than it saves, even where AVX512-BF16 is there: a training step of
VGG16 at 32 pixels ran at 63 images/s against 95 in float32 (batch 32), 80 against 121 (batch 128).
A GPU or TPU has the units.
"""

from pathlib import Path

from transfer.models.backbones import get_backbone


def choose_precision(backbone: str, requested: str = "auto") -> tuple[str, str]:
    """Picks the Keras dtype policy of a run.

    Args:
        backbone: a row of `BACKBONES`.
        requested: "auto", "float32" or "bfloat16".

    Returns:
        The policy, "float32" or "mixed_bfloat16" (weights stay float32), and the reason.
    """
    if requested != "auto":
        policy = "mixed_bfloat16" if requested == "bfloat16" else "float32"
        return policy, f"as asked for (--precision {requested})"
    if has_accelerator():
        return "mixed_bfloat16", "a GPU or TPU computes in bfloat16"
    if not cpu_has_amx():
        return "float32", "this CPU has no AMX units for bfloat16"
    if get_backbone(backbone).bfloat16_training:
        return "mixed_bfloat16", f"{backbone} trains faster in bfloat16 on this CPU"
    return "float32", f"{backbone} trains faster in float32 on a CPU"


def has_accelerator() -> bool:
    """Returns whether TensorFlow sees a GPU or TPU."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU"))


def cpu_has_amx(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Returns whether the CPU has AMX tiles for bfloat16; False where it cannot say."""
    try:
        flags = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "amx_bf16" in flags
