"""Exports: each answers as its original, in a runtime of its own; strangers' files are bounded."""

import ast
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import transfer
from tests.conftest import make_framed
from tests.test_end_to_end import REPOSITORY
from transfer import console
from transfer.commands.export import main as export_command
from transfer.data.geometry import FITS, Geometry, fit_image
from transfer.deploy import choices, engine_process, export, standalone
from transfer.deploy.classifiers import open_run
from transfer.deploy.engines import FACTS
from transfer.deploy.export import Exporter, ExportOptions, RefusedError
from transfer.deploy.exported import open_exported
from transfer.deploy.facts import parse_model_facts
from transfer.deploy.fastest import fastest_export
from transfer.deploy.formats import FORMATS, missing_modules
from transfer.deploy.opening import open_classifier
from transfer.errors import InputError
from transfer.runs.finished import FinishedRun

pytestmark = pytest.mark.usefixtures("tiny_backbone")

KINDS = [
    ("litert", "none", 2e-4),
    ("litert", "int8", 0.1),
    ("litert", "float16", 5e-3),
    ("onnx", "none", 2e-4),
    ("openvino", "float16", 0.02),
    ("saved-model", "none", 2e-4),
]
IDS = [f"{form}-{quantize}" for form, quantize, _ in KINDS]


# Of the module, not the session: the backbone "tiny" is in no other test's table.
@pytest.fixture(scope="module")
def exporter(framed_run):
    from tests.conftest import tiny_row
    from transfer.models.backbones import BACKBONES

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", tiny_row())
        patch.setattr(export, "CALIBRATION_IMAGES", 40)
        patch.setattr("transfer.deploy.verify._SECONDS", 0.01)
        yield Exporter(FinishedRun(framed_run))


@pytest.fixture(scope="module")
def exports(exporter, tmp_path_factory):
    """Returns what makes an export once."""
    folder, made = tmp_path_factory.mktemp("exports"), {}

    def get(form, quantize="none"):
        for module in missing_modules(form, quantize):
            pytest.skip(f"{module} is not installed")
        if (form, quantize) not in made:
            options = ExportOptions(form, quantize, most_loss=5.0)
            made[form, quantize] = exporter.export(options, folder / f"{form}-{quantize}")
        return made[form, quantize]

    return get


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos of several sizes and colours."""
    folder = tmp_path_factory.mktemp("photos")
    for number, image in enumerate(make_framed(5, seed=1)[0]):
        photo = Image.fromarray(image[..., 0])
        if number % 2:
            photo = photo.resize((90, 61)).convert("RGB")
        photo.save(folder / f"{number}.png")
    return sorted(str(path) for path in folder.iterdir())


@pytest.mark.parametrize(("form", "quantize", "tolerance"), KINDS, ids=IDS)
def test_an_export_answers_as_its_run(exports, framed_run, photos, form, quantize, tolerance):
    made = exports(form, quantize)
    assert made.verification.num_images == 101
    assert made.verification.loss <= 5 and made.verification.largest_difference < tolerance
    assert set(made.verification.images_per_second) == {1, 32}
    facts = parse_model_facts((made.path.parent / FACTS).read_text(), "beside")
    assert facts.class_names == ("level", "upright") and facts.ground == "dark"
    assert facts.accuracy == made.verification.accuracy
    if form == "saved-model":
        assert (made.path / "assets.extra" / FACTS).is_file()
        return
    opened = open_exported(made.path)
    assert opened.facts == facts  # in the file what is beside it
    assert open_classifier(made.path.parent).facts == facts
    images = make_framed(40, seed=1)[0]
    run = open_run(FinishedRun(framed_run))
    found, expected = opened.outputs(images), run.outputs(images)
    np.testing.assert_allclose(found.y_prob, expected.y_prob, atol=tolerance)
    if quantize == "none":
        np.testing.assert_allclose(found.distance, expected.distance, rtol=1e-2, atol=0.02)
    noise = np.random.default_rng(0).integers(0, 256, images.shape, np.uint8)
    near, far = (np.median(opened.outputs(one).distance) for one in (images, noise))
    expected_far = np.median(run.outputs(noise).distance)
    assert far > 2 * near and abs(far / expected_far - 1) < 0.3  # in 8 bits too


def test_int8_keeps_the_matrices_of_the_distance_in_8_bits_too(exports):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    tensors = litert.Interpreter(str(exports("litert", "int8").path)).get_tensor_details()
    dtypes = {t["dtype"] for t in tensors if "directions" in t["name"] and len(t["shape"]) == 2}
    assert np.int8 in dtypes


def test_the_same_photo_has_the_same_answer_through_every_door(exports, framed_run, photos):
    expected = transfer.predict(framed_run, photos)
    for form in ("litert", "onnx"):
        said = transfer.predict(exports(form).path, photos)
        for one, other in zip(said, expected, strict=True):
            assert (one.path, one.predicted, one.answered) == (
                other.path,
                other.predicted,
                other.answered,
            )
            assert one.confidence == pytest.approx(other.confidence, abs=1e-3)


@pytest.mark.parametrize("form", ["litert", "onnx"])
def test_the_script_beside_it_needs_nothing_of_this_package(exports, framed_run, photos, form):
    made = exports(form)
    script = made.path.parent / export.SCRIPT
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    code = (
        "import runpy, sys; sys.modules.update(transfer=None, tensorflow=None, keras=None);"
        f"sys.argv = [{str(script)!r}, *{photos!r}];"
        f"runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    finished = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, env=environment
    )
    assert finished.returncode == 0, finished.stderr
    lines = [line.split("\t") for line in finished.stdout.splitlines()]
    for (path, said, confidence), answer in zip(
        lines, transfer.predict(framed_run, photos, invert="no"), strict=True
    ):
        assert path == answer.path and said.split(", ")[-1] == answer.predicted
        assert float(confidence) == pytest.approx(answer.confidence, abs=2e-3)
        assert said.startswith("unknown") != answer.answered
    assert len(script.read_text().splitlines()) < 70


def test_quantizations_of_a_format_begin_with_one_conversion(framed_run, tmp_path, monkeypatch):
    for module in missing_modules("litert", "float16"):
        pytest.skip(f"{module} is not installed")
    monkeypatch.setattr("transfer.deploy.verify._SECONDS", 0.01)
    exporter, asked = Exporter(FinishedRun(framed_run)), []
    plain = keras.Model.export

    def told(model, path, format, **options):
        asked.append(format)
        return plain(model, path, format=format, **options)

    monkeypatch.setattr(keras.Model, "export", told)
    sizes = [
        exporter.export(ExportOptions(quantize=quantize, limit=8), tmp_path / quantize)
        .path.stat()
        .st_size
        for quantize in ("float16", "none")
    ]
    assert asked == ["litert"] and sizes[0] < sizes[1]


def test_a_network_with_means_of_its_own_takes_photos_alone(framed_run, tmp_path, monkeypatch):
    from transfer.models.backbones import BACKBONES

    if missing_modules("onnx", "none"):
        pytest.skip("onnx is not installed")
    monkeypatch.setitem(BACKBONES, "tiny", dataclasses.replace(BACKBONES["tiny"], scaling="torch"))
    monkeypatch.setattr("transfer.deploy.verify._SECONDS", 0.01)
    options = ExportOptions("onnx", most_loss=100.0, limit=8)
    made = Exporter(FinishedRun(framed_run)).export(options, tmp_path / "x")
    assert open_exported(made.path).outputs(make_framed(2)[0]).y_prob.shape == (2, 2)


def test_the_facts_stand_once_in_a_file(exports):
    with zipfile.ZipFile(exports("litert").path) as archive:
        assert archive.namelist() == [FACTS, "labels.txt"]
        assert archive.read("labels.txt") == b"level\nupright\n"


def test_the_table_of_formats_is_that_of_the_command():
    assert tuple(FORMATS) == choices.FORMATS
    for row in FORMATS.values():
        assert set(row.quantizations) <= set(choices.QUANTIZATIONS)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(90, 61), (17, 40)])
def test_the_script_fits_photos_as_this_package(fit, size):
    for form in FORMATS:
        compile(standalone.standalone_script(form, fit), form, "exec")
    source = ast.parse(standalone.standalone_script("onnx", fit))
    (function,) = (one for one in source.body if getattr(one, "name", "") == "fit")
    names = {"np": np, "Image": Image}
    exec(compile(ast.Module([function], []), "fit", "exec"), names)
    generator = np.random.default_rng(0)
    photo = Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8))
    expected = np.asarray(fit_image(photo, Geometry(28, 30, 3, fit)))
    np.testing.assert_array_equal(np.asarray(names["fit"](photo, (30, 28))), expected)


def test_predicting_with_a_file_needs_what_its_extra_installs_alone(exports, photos, tmp_path):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = [re.match(r"[\w-]+", line)[0] for line in project["optional-dependencies"]["train"]]
    names = {"scikit-learn": "sklearn", "markdown-it-py": "markdown_it", "pyyaml": "yaml"}
    for name in needed:  # first on the path of both processes
        module = tmp_path / f"{names.get(name, name)}.py"
        module.write_text(
            "raise ModuleNotFoundError(f'No module named {__name__!r}', name=__name__)"
        )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}

    def run(*words):
        words = [sys.executable, "-m", "transfer", *map(str, words)]
        return subprocess.run(words, capture_output=True, text=True, env=environment)

    answered = run("predict", exports("litert").path, *photos, "--csv", tmp_path / "answers.csv")
    assert answered.returncode == 0 and "5 photos:" in answered.stdout, answered.stderr
    refused = run("runs")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert 'pip install "transfer[train]"' in refused.stderr


def test_a_stop_after_models_of_openvino_are_gone_is_a_stop(exports):
    code = (
        "import gc, os, signal, sys; from pathlib import Path\n"
        "import faulthandler; faulthandler.enable()\n"  # as pytest does: a stack for signals
        "from transfer.deploy.engines import load_engine\n"
        "import numpy as np\n"
        "loaded = [load_engine(Path(sys.argv[1])) for _ in range(2)]\n"
        "for engine in loaded: engine.run(np.zeros((1, *engine.input_shape), np.uint8))\n"
        "del engine; del loaded[0]; gc.collect(); loaded.clear(); gc.collect()\n"
        "try: os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt: print('stopped')\n"
    )
    command = [sys.executable, "-c", code, str(exports("openvino", "float16").path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "stopped\n", (done.returncode, done.stderr)


def test_predict_takes_the_fastest_export_that_is_as_good_as_the_run(
    exports, framed_run, photos, tmp_path, capsys
):
    run = shutil.copytree(framed_run, tmp_path / "run")
    for form, speed, changes in (
        ("litert", 20.0, {}),
        ("onnx", 10.0, {}),
        ("openvino", 30.0, {"loss_in_points": 0.06}),
    ):
        folder = run / "exports" / form
        shutil.copytree(
            exports(form, "float16" if form == "openvino" else "none").path.parent, folder
        )
        kept = json.loads((folder / "verification.json").read_text())
        assert kept["model_sha256"] and kept["quantize"] in ("none", "float16")
        kept |= {"loss_in_points": 0.0, "images_per_second": {"32": speed}} | changes
        (folder / "verification.json").write_text(json.dumps(kept))
    assert fastest_export(run) == run / "exports/litert/model.tflite"
    with console.speaking():
        said = transfer.predict(run, photos)
    assert "exports/litert/model.tflite" in capsys.readouterr().out
    assert [one.predicted for one in said] == [
        one.predicted for one in transfer.predict(framed_run, photos)
    ]
    (run / "exports/litert/verification.json").write_text("[")
    assert fastest_export(run) == run / "exports/onnx/model.onnx"
    (run / "model.keras").write_bytes(b"another model")
    assert fastest_export(run) is None


def test_what_loses_too_much_is_refused_and_gone(exporter, tmp_path, monkeypatch):
    if missing_modules("litert", "none"):
        pytest.skip("ai_edge_litert is not installed")
    options = ExportOptions("litert", most_loss=-1000.0)
    with pytest.raises(RefusedError, match="percentage points"):
        exporter.export(options, tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x.refused"]
    assert json.loads((tmp_path / "x.refused").read_text())["num_images"] == 101


def test_auto_falls_back_and_says_so(exporter, tmp_path, monkeypatch):
    tried = []

    def refuse(options, output):
        tried.append(options.quantize)
        if options.quantize == "int8":
            raise RefusedError("lost too much.")
        return "made"

    monkeypatch.setattr(exporter, "_export", refuse)
    assert exporter.export(ExportOptions(quantize="auto")) == "made"
    assert tried == ["int8", "float16"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["{run}", "--format", "onnx", "--quantize", "int8"], 1, "--quantize"),
        (["{run}", "--format", "pdf"], 2, "litert"),
        (["{run}", "--output", "{run}"], 1, "exists already"),
        (["{run}", "--all", "--output", "x"], 2, "--output"),
        (["gone"], 1, "gone"),
    ],
)
def test_what_cannot_be_exported_is_told_before_anything_slow(framed_run, words, code, told):
    words = [word.format(run=framed_run) for word in words]
    finished = CliRunner().invoke(export_command, words)
    assert finished.exit_code != 0 and told in finished.output + str(finished.exception)


# --- Files of strangers ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.tflite", "x.onnx", "x.xml", "x.keras", "x"])
def test_no_model_is_told_in_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"no model" * 100)
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(InputError) as told:
        open_exported(tmp_path / name)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("damage", ["cut", "flipped", "no facts", "other facts", "more classes"])
def test_a_damaged_file_is_told_in_one_line(exports, tmp_path, damage):
    whole = exports("litert").path.read_bytes()
    path = tmp_path / "x.tflite"
    facts = json.loads((exports("litert").path.parent / FACTS).read_text())
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        content = bytearray(whole)
        generator = np.random.default_rng(0)
        for place in generator.integers(0, 2000, 200):
            content[place] ^= 0xFF
        path.write_bytes(bytes(content))
    else:
        facts |= {
            "no facts": {},
            "other facts": {"geometry": facts["geometry"] | {"height": 99}},
            "more classes": {"class_names": ["a", "b", "c"]},
        }[damage]
        shutil.copy(exports("litert").path, path)
        with pytest.warns(UserWarning), zipfile.ZipFile(path, "a") as archive:
            archive.writestr(FACTS, "[]" if damage == "no facts" else json.dumps(facts))
    with pytest.raises(InputError) as told:
        open_exported(path).outputs(make_framed(2)[0])
    assert "\n" not in str(told.value)


def forge(path, facts):
    """Puts other facts into an exported file; returns where the model ends."""
    with zipfile.ZipFile(path) as archive:
        start = min(member.header_offset for member in archive.infolist())
    os.truncate(path, start)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(FACTS, facts)
    return start


@pytest.mark.parametrize("bomb", ["large", "forged size", "many members", "deep"])
def test_facts_that_grow_are_not_expanded(exports, tmp_path, bomb):
    path = tmp_path / "x.tflite"
    shutil.copy(exports("litert").path, path)
    start = forge(path, "[" * 7_000_000 if bomb == "deep" else b" " * (64 << 20))
    if bomb == "forged size":
        content, size = path.read_bytes(), (64 << 20).to_bytes(4, "little")
        path.write_bytes(content[:start] + content[start:].replace(size, b"\x08\0\0\0"))
    if bomb == "many members":
        with zipfile.ZipFile(path, "a") as archive:
            for number in range(20_000):
                archive.writestr(str(number), b"")
    with pytest.raises(InputError, match="should hold facts"):
        open_exported(path)


def onnx_file(path, nodes, initializers=(), facts=""):
    """Writes a graph that takes photos of 8 x 8 pixels as `image` and gives `answer`."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    kinds, make = onnx.TensorProto, onnx.helper
    shape = ["n", 8, 8, 3]
    graph = make.make_graph(
        [make.make_node(*one[:3], **one[3]) for one in nodes],
        "stranger",
        [make.make_tensor_value_info("image", kinds.UINT8, shape)],
        [make.make_tensor_value_info("answer", kinds.FLOAT, None)],
        initializers,
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    make.set_model_props(model, {FACTS: json.dumps(facts)})
    path.write_bytes(model.SerializeToString())


FORGED = {
    "name": "x",
    "class_names": ["a", "b"],
    "geometry": {"height": 8, "width": 8, "channels": 3, "fit": "squash"},
    **dict.fromkeys(("ground", "data", "provenance", "weights", "licence"), ""),
    "temperature": 1.0,
    "num_test_images": 0,
    "versions": {},
}


@pytest.mark.parametrize("place", ["", "secret.bin", "{folder}/secret.bin"])
def test_no_other_file_is_read_as_weights(tmp_path, monkeypatch, place):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    (tmp_path / "work").mkdir()
    for folder in (tmp_path, tmp_path / "work"):
        (folder / "secret.bin").write_bytes(np.float32([0.25, 0.75]).tobytes())
    monkeypatch.chdir(tmp_path / "work")
    weights = onnx.numpy_helper.from_array(np.float32([[0.25, 0.75]]), "w")
    if place:
        weights.ClearField("raw_data")
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=place.format(folder=tmp_path))
    path, photo = tmp_path / "work/x.onnx", np.zeros((1, 8, 8, 3), np.uint8)
    onnx_file(path, [("Identity", ["w"], ["answer"], {})], [weights], FORGED)
    if not place:  # the file is good where its weights are in it
        np.testing.assert_array_equal(open_exported(path).outputs(photo).y_prob, [[0.25, 0.75]])
        return
    with pytest.raises(InputError) as told:
        open_exported(path).outputs(photo)
    assert "\n" not in str(told.value) and "0.75" not in str(told.value)


@pytest.mark.parametrize("greedy", ["memory", "some memory", "output", "time"])
def test_a_graph_that_wants_too_much_is_ended(tmp_path, monkeypatch, greedy):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    array = onnx.numpy_helper.from_array
    if greedy != "time":
        nodes = [("ConstantOfShape", ["s"], ["answer"], {})]
        sides = {"memory": 1 << 20, "some memory": 18_500, "output": 1 << 10}  # 4 TB, 1.4 GB, 4 MB
        numbers = [array(np.int64([1, sides[greedy] ** 2]), "s")]
    else:
        monkeypatch.setattr(engine_process, "SECONDS", 3)
        make, kinds = onnx.helper, onnx.TensorProto
        scalar = {name: make.make_tensor_value_info(name, kinds.BOOL, []) for name in ("c", "d")}
        body = make.make_graph(
            [make.make_node("Identity", ["c"], ["d"]), make.make_node("Exp", ["v"], ["u"])],
            "body",
            [
                make.make_tensor_value_info("i", kinds.INT64, []),
                scalar["c"],
                make.make_tensor_value_info("v", kinds.FLOAT, [2]),
            ],
            [scalar["d"], make.make_tensor_value_info("u", kinds.FLOAT, [2])],
        )
        nodes = [("Loop", ["s", "t", "w"], ["answer"], {"body": body})]
        numbers = [
            array(np.int64(1 << 62), "s"),
            array(np.array(True), "t"),
            array(np.float32([0.5, 0.5]), "w"),
        ]
    onnx_file(tmp_path / "x.onnx", nodes, numbers, FORGED)
    with pytest.raises(InputError) as told:
        open_exported(tmp_path / "x.onnx").outputs(np.zeros((1, 8, 8, 3), np.uint8))
    assert "\n" not in str(told.value)


def test_a_runtime_that_hangs_or_crashes_is_told(exports, monkeypatch):
    opened = open_exported(exports("litert").path)
    process = opened.outputs.__closure__  # the process is what the function holds
    assert process
    monkeypatch.setattr("transfer.deploy.exported.read_frame", lambda file, most: None)
    with pytest.raises(InputError, match="more memory or time"):
        opened.outputs(make_framed(2)[0])


def test_frames_are_bounded(tmp_path):
    path = tmp_path / "frames"
    with open(path, "wb") as file:
        engine_process.write_frame(file, b"abc")
    with open(path, "rb") as file:
        assert engine_process.read_frame(file, 3) == b"abc"
        assert engine_process.read_frame(file, 3) is None
    with open(path, "rb") as file:
        assert engine_process.read_frame(file, 2) is None
