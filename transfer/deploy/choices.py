"""The words that commands take: read on the way to `--help`, where nothing heavy is loaded."""

INCLUDED = "included"  # the model that comes with the package

FORMATS = LITERT, ONNX, OPENVINO, SAVED_MODEL = "litert", "onnx", "openvino", "saved-model"
QUANTIZATIONS = NONE, FLOAT16, INT8, AUTO = "none", "float16", "int8", "auto"

INVERT = ("auto", "yes", "no")
