"""Commands whose output cannot be written, and errors that nobody's code foresaw."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from transfer import signals
from transfer.backend import load_keras
from transfer.commands import exit_codes
from transfer.commands.streams import Steady
from transfer.errors import InputError, Interrupted
from transfer.tuning.deadline import Deadline

ROOT = Path(__file__).parents[1]
FULL = Path("/dev/full")

# Prints as every command does: with click, and with rich's console.
CODE = """
import os, click
from transfer import console
from transfer.commands.exit_codes import run

@click.command()
def main():
    console.speak()
    for number in range(3000):
        console.say(f"line {number} \\u732b \\udcff")
    click.echo("all")
    open("done", "w").write("the work was done")

run(main)
"""


def python(code, cwd, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} | options.pop("env", {})
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, stderr=subprocess.PIPE, **options
    )


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_a_full_output_is_one_line_and_the_work_is_done(tmp_path):
    with FULL.open("w") as full:
        done = python(CODE, tmp_path, stdout=full)
    assert done.returncode == 1 and (tmp_path / "done").exists()
    told = "Error: standard output: No space left on device; what was printed is lost.\n"
    assert done.stderr.decode() == told


def test_a_reader_that_goes_away_ends_nothing(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = python(CODE, tmp_path, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"") and (tmp_path / "done").exists()


def test_an_output_that_is_closed_takes_no_file_for_itself(tmp_path):
    code = f"import os, sys\nos.close(1); sys.stdout = None\n{CODE}"
    done = python(code, tmp_path, stdout=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "done").read_text() == "the work was done"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_what_a_terminal_cannot_write_is_an_escape(tmp_path, encoding):
    done = python(CODE, tmp_path, stdout=subprocess.PIPE, env={"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, b"")
    cat = "\u732b" if encoding == "utf-8" else "\\u732b"
    assert done.stdout.decode(encoding).splitlines()[0] == f"line 0 {cat} \\udcff"


def test_a_stream_tells_its_first_error_and_goes_on():
    class Broken(io.StringIO):
        def write(self, text):
            raise OSError(28, text)

    stream = Steady(Broken())
    assert stream.write("first") == 5
    stream.writelines(["second", "third"])
    stream.flush()
    assert stream.error.strerror == "first" and stream.encoding is None


# --- Errors and stops -----------------------------------------------------------------------


@pytest.fixture
def no_options(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["transfer"])


class ResourceExhaustedError(Exception):
    """As TensorFlow calls it."""


def run_raising(error, capsys):
    def fail():
        raise error

    with pytest.raises(SystemExit) as ended:
        exit_codes.run(click.command()(fail), "transfer")
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return ended.value.code, err


@pytest.mark.usefixtures("no_options")
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device", "runs/a"), "runs/a: No space left on device"),
        (PermissionError(13, "Permission denied", b"a\xff"), "a\\udcff: Permission denied"),
        (ResourceExhaustedError("No space left on device [Op:x]"), "No space left on device"),
        (ResourceExhaustedError("OOM when allocating tensor"), "not enough memory"),
        (MemoryError(), "not enough memory"),
        (InputError("bad"), "bad"),
    ],
    ids=repr,
)
def test_errors_of_disk_and_memory_are_one_line_each_its_own(error, told, capsys):
    code, err = run_raising(error, capsys)
    assert code == 1 and err.startswith("Error: ") and told in err


@pytest.mark.usefixtures("no_options")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("way", ["swallowed", "made an error of", "passed on"])
def test_a_stop_is_obeyed_whatever_a_library_makes_of_it(capsys, number, way):
    def work():
        try:
            os.kill(os.getpid(), number)
        except BaseException as error:
            if way == "made an error of":
                raise InputError("the file is damaged") from error
            if way == "passed on":
                raise
        with pytest.raises(Interrupted):
            signals.obey()

    with pytest.raises(SystemExit) as ended:
        exit_codes.run(click.command()(work), "transfer")
    assert ended.value.code == 128 + number
    assert capsys.readouterr() == ("", "Stopped.\n")


@pytest.mark.usefixtures("no_options")
def test_a_time_limit_is_no_stop(capsys):
    def work():
        with pytest.raises(Interrupted):
            with Deadline(0.0):
                time.sleep(5)
        signals.forget()
        signals.obey()
        click.echo("all that was found")

    with pytest.raises(SystemExit) as ended:
        exit_codes.run(click.command()(work), "transfer")
    assert ended.value.code == 0 and capsys.readouterr() == ("all that was found\n", "")


@pytest.mark.usefixtures("no_options")
def test_what_nobody_foresaw_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        exit_codes.run(click.command()(lambda: 1 / 0), "transfer")


# --- Keras as others set it up ----------------------------------------------------------------


def test_whatever_was_set_before_changes_nothing(monkeypatch):
    import keras

    config = keras.config
    config.set_floatx("float64")
    config.set_epsilon(0.01)
    config.set_image_data_format("channels_first")
    config.set_dtype_policy("mixed_float16")
    config.set_max_epochs(1)  # as $KERAS_MAX_EPOCHS
    load_keras()
    assert (config.floatx(), config.epsilon()) == ("float32", 1e-7)
    assert config.image_data_format() == "channels_last" and config.max_epochs() is None
    assert config.dtype_policy().name == "float32"


def test_a_backend_that_was_chosen_before_is_told(monkeypatch):
    import keras

    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(InputError, match="runs on torch .* set KERAS_BACKEND=tensorflow"):
        load_keras()


@pytest.mark.parametrize(
    "error", ["ValueError('Invalid `floatx` configuration.')", "TypeError('no text')"]
)
def test_a_keras_json_that_keeps_keras_from_starting_is_told(tmp_path, error):
    (tmp_path / "keras.py").write_text(f"raise {error}")
    code = (
        "from transfer.backend import load_keras\nfrom transfer.errors import InputError\n"
        "try: load_keras()\nexcept InputError as error: print(error)"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = python(code, tmp_path, stdout=subprocess.PIPE, env={"PYTHONPATH": path})
    assert done.stdout.startswith(b"Keras does not start: ") and done.stderr == b""
