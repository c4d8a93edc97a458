"""`predict_standalone.py`: what runs an exported file with its runtime, NumPy and Pillow alone."""

from transfer.data.geometry import CROP, PAD, SQUASH

_RUNTIMES = {
    "litert": (
        "from ai_edge_litert.interpreter import Interpreter",
        """\
    model = Interpreter(str(HERE / "model.tflite"))
    taken = model.get_input_details()[0]["index"]
    model.resize_tensor_input(taken, images.shape)
    model.allocate_tensors()
    model.set_tensor(taken, images)
    model.invoke()
    return [model.get_tensor(one["index"]) for one in model.get_output_details()]""",
    ),
    "onnx": (
        "import onnxruntime",
        """\
    model = onnxruntime.InferenceSession(str(HERE / "model.onnx"))
    return model.run(None, {model.get_inputs()[0].name: images})""",
    ),
    "openvino": (
        "import openvino",
        """\
    how = {"INFERENCE_PRECISION_HINT": "f32"}
    found = openvino.Core().compile_model(HERE / "model.xml", "CPU", how)(images)
    return list(found.to_tuple())""",
    ),
    "saved-model": (
        "import tensorflow",
        """\
    model = tensorflow.saved_model.load(str(HERE / "saved_model"))
    return [output.numpy() for output in model.serve(tensorflow.constant(images))]""",
    ),
}
# As `fit_image` of data/geometry.py: a photo of another size, brought to `size`.
_FITS = {
    SQUASH: """\
    return photo.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)""",
    CROP: """\
    scale = min(have / want for have, want in zip(photo.size, size))
    width, height = (want * scale for want in size)
    left, top = (photo.width - width) / 2, (photo.height - height) / 2
    box = (left, top, left + width, top + height)
    return photo.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=2.0)""",
    PAD: """\
    scale = min(want / have for have, want in zip(photo.size, size))
    inner = [min(want, max(1, round(have * scale))) for have, want in zip(photo.size, size)]
    pixels = np.asarray(photo.resize(inner, Image.Resampling.BILINEAR, reducing_gap=2.0))
    down, across = size[1] - inner[1], size[0] - inner[0]
    sides = [(down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0)]
    return Image.fromarray(np.pad(pixels, sides[: pixels.ndim], mode="edge"))""",
}

_SCRIPT = '''\
"""Names what is on photos: python predict_standalone.py PHOTO..."""

import json
import sys
from pathlib import Path

{import_}
import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).parent
FACTS = json.loads((HERE / "model_facts.json").read_text(encoding="utf-8"))
SHAPE = FACTS["geometry"]


def run(images):
{run}


def fit(photo, size):
{fit}


def read(path):
    photo = ImageOps.exif_transpose(Image.open(path))
    if photo.has_transparency_data:
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo.convert("RGBA"))
    photo = photo.convert("L" if SHAPE["channels"] == 1 else "RGB")
    size = SHAPE["width"], SHAPE["height"]
    photo = photo if photo.size == size else fit(photo, size)
    return np.asarray(photo.convert("RGB"))


paths = sys.argv[1:]
outputs = sorted(run(np.stack([read(path) for path in paths])), key=lambda one: -one.shape[1])
logits = np.log(np.maximum(outputs[0], 1e-30)) / FACTS["temperature"]
confidence = np.exp(logits - logits.max(axis=1, keepdims=True))
confidence /= confidence.sum(axis=1, keepdims=True)
distances = outputs[1][:, 0] if len(outputs) > 1 else np.zeros(len(paths))
for path, row, distance in zip(paths, confidence, distances):
    is_far = distance > (FACTS["distance_threshold"] or np.inf)
    unknown = "unknown, " if is_far or row.max() < (FACTS["threshold"] or 0) else ""
    print(f"{{path}}\\t{{unknown}}{{FACTS['class_names'][row.argmax()]}}\\t{{row.max():.4f}}")
'''


def standalone_script(form: str, fit: str) -> str:
    """Returns the script.

    Args:
        form: a row of `FORMATS`.
        fit: of the model's geometry.
    """
    import_, run = _RUNTIMES[form]
    return _SCRIPT.format(import_=import_, run=run, fit=_FITS[fit])
