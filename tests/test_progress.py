"""Progress: plain lines where there is no terminal, a bar that goes away where there is one."""

import contextlib
import io
import re

import keras
import numpy as np
import pytest
from rich.console import Console

from transfer import console
from transfer.config import Config
from transfer.progress import PhaseProgress
from transfer.training.forecast import Forecast

LOGS = {
    "loss": 0.51234,
    "accuracy": 0.8,
    "val_loss": 0.4,
    "val_accuracy": 0.85125,
    "learning_rate": 5e-4,
}
EPOCH_LINE = re.compile(
    r"head (\d)/2 +0\.5123 +80\.00 % +0\.4000 +85\.12 %  \d+\.\d s( +0\.0005  [\d,]+ images/s)?"
)
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def make_progress(epochs=2):
    return PhaseProgress("head", num_images=1_000, steps=8, epochs=epochs)


def fit(progress, epochs=2):
    """What Keras calls during a fit, without the end."""
    progress.on_train_begin()
    for epoch in range(epochs):
        progress.on_epoch_begin(epoch)
        for batch in range(8):
            progress.on_train_batch_end(batch)
        progress.on_epoch_end(epoch, LOGS)


@pytest.fixture
def log():
    """This process speaks, and what it says goes into a file."""
    with console.speaking():
        yield


@pytest.fixture
def terminal():
    """This process speaks to a terminal, which is returned."""
    screen = Console(file=io.StringIO(), force_terminal=True, width=200)
    with console.voice(screen):
        yield screen


def test_a_log_gets_one_plain_line_an_epoch(capsys, log):
    progress = make_progress()
    fit(progress)
    progress.on_train_end()
    out, err = capsys.readouterr()
    names, *lines = out.splitlines()
    assert err == "" and "\x1b" not in out and "\r" not in out
    assert names.split() == "loss accuracy validation loss accuracy time".split()
    assert [EPOCH_LINE.fullmatch(line).group(1, 2) for line in lines] == [("1", None), ("2", None)]
    assert max(map(len, [names, *lines])) < 80


def test_a_verbose_log_has_learning_rate_and_speed(capsys):
    console.speak(verbose=True)
    fit(make_progress())
    names, *lines = capsys.readouterr().out.splitlines()
    assert names.split()[-3:] == ["learning", "rate", "speed"]
    assert all(EPOCH_LINE.fullmatch(line).group(2) for line in lines)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("title", ["head", "fine-tune", "fold 3: fine-tune"])
def test_no_line_of_a_terminal_is_wider_than_it(width, title):
    screen = Console(file=io.StringIO(), force_terminal=True, width=width)
    with console.voice(screen):
        progress = PhaseProgress(title, num_images=54_000, steps=422, epochs=100, first_epoch=99)
        progress.on_train_begin()
        progress.on_epoch_begin(99)
        progress._started -= 1  # tens of thousands of images a second
        progress.on_train_batch_end(400)
        progress._bar.refresh()
        progress.on_epoch_end(99, LOGS)
        progress.close()
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen.file.getvalue())
    lines = re.split(r"[\r\n]+", plain)
    assert max(map(len, lines)) <= width and "\u2026" not in plain
    assert any("images/s left " in line for line in lines)


def test_a_terminal_breaks_no_word_and_no_command():
    path = "/a/path/that/is/longer/than/the/whole/of/this/terminal"
    with console.voice(
        Console(file=io.StringIO(), force_terminal=True, width=30, highlight=False)
    ) as screen:
        console.say(f"Weights of a network are in {path} as said")
        console.say("Next: transfer evaluate runs/a/b/c --report")
        lines = screen.file.getvalue().splitlines()
    assert path in lines and lines[-1] == "Next: transfer evaluate runs/a/b/c --report"


def test_a_log_gets_one_plain_line_a_prediction(capsys, log):
    progress = make_progress(epochs=1)
    progress.on_predict_begin()
    for batch in range(8):
        progress.on_predict_batch_end(batch)
    progress.on_predict_end()
    assert re.fullmatch(
        r"head: 1,000 images, [\d,]+ images/s, \d+\.\d s\n", capsys.readouterr().out
    )


def test_several_steps_at_a_time_do_not_run_beyond_the_end_of_an_epoch(terminal):
    progress = make_progress()
    progress.on_train_begin()
    for epoch in range(2):
        progress.on_epoch_begin(epoch)
        for last, done in ((4, 5), (9, 8)):  # five steps at a time of eight
            progress.on_train_batch_end(last)
            assert progress._bar.tasks[0].completed == epoch * 8 + done
    progress.close()


@pytest.mark.parametrize("said", [False, True])
def test_a_quiet_process_says_nothing(capsys, said):
    # Used from Python it is so until asked.
    with console.speaking(quiet=True) if said else contextlib.nullcontext():
        progress = make_progress()
        fit(progress)
        progress.close()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_with_images_a_second_and_time_left(terminal):
    progress = make_progress()
    fit(progress)
    progress.on_train_end()
    shown = terminal.file.getvalue()
    assert HIDE_CURSOR in shown and shown.rfind(SHOW_CURSOR) > shown.rfind(HIDE_CURSOR)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)
    assert "images/s" in plain and "left" in plain and "100 %" in plain
    assert [number for number, _ in EPOCH_LINE.findall(plain)] == ["1", "2"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_closing_twice_is_fine_also_when_nothing_began(is_terminal):
    screen = Console(file=io.StringIO(), force_terminal=is_terminal, width=200)
    with console.voice(screen):
        progress = make_progress()
        progress.close()
        progress.close()
        progress = make_progress()
        progress.on_train_begin()
        progress.on_epoch_begin(0)
        progress.on_train_batch_end(0)  # and then an error
        progress.close()
        progress.close()
        shown = screen.file.getvalue()
        assert shown.count(HIDE_CURSOR) <= shown.count(SHOW_CURSOR)
        assert (HIDE_CURSOR in shown) == is_terminal
        before = len(shown)
        progress.close()
    assert len(screen.file.getvalue()) == before


def test_keras_calls_it_as_expected(capsys, log):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    inputs, targets = np.ones((10, 3), "float32"), np.eye(2, dtype="float32")[[0, 1] * 5]
    progress = PhaseProgress("head", num_images=10, steps=3, epochs=2)
    model.fit(
        inputs,
        targets,
        batch_size=4,
        epochs=2,
        verbose=0,
        validation_data=(inputs, targets),
        callbacks=[keras.callbacks.ReduceLROnPlateau(), progress],
    )
    progress = PhaseProgress("test", num_images=10, steps=3)
    model.predict(inputs, batch_size=4, verbose=0, callbacks=[progress])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("head 1/2 ") and lines[2].startswith("head 2/2 ")
    assert lines[3].startswith("test: 10 images, ")


def test_a_forecast_names_the_phases_to_come_and_is_told_again_where_it_was_wrong(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1e9)
    forecast = Forecast(Config(head_epochs=10, finetune_epochs=4), 1_000, 100)
    during = forecast.during_pass(later=1_100)
    # 2,100 images of features at 0.1 s each, and 4 epochs of five times that.
    told = during(0.1, 1_000)
    assert re.fullmatch(
        r"Forecast: done in 38 min, at \d\d:\d\d, or sooner "
        r"\(features 4 min, head 30 s, fine-tune 34 min\)",
        told,
    )
    assert during(0.1, 1_000) == ""  # still so
    assert "fine-tune" in forecast.during("head")(0.2, 10_000)
    assert forecast.during("fine-tune")(0.001, 4_000) == ""  # seconds
    assert "in 10 min" in forecast.during("fine-tune")(0.147, 4_000)
    config = Config(image_size=96, small_image_size=48, small_epochs=4, finetune_epochs=1)
    told = Forecast(config, 1_000, 100).during("small images")(0.5, 4_000)
    assert "(small images 34 min, fine-tune 34 min)" in told  # a quarter of the pixels
    assert "fine-tune" not in Forecast(Config(), 1_000, 100).during("head")(1.0, 1_000)


def test_a_forecast_is_told_after_the_first_seconds(capsys, log):
    asked = []

    def foretell(seconds, left):
        asked.append((seconds, left))
        return "Forecast: later"

    progress = PhaseProgress("head", num_images=800, steps=8, epochs=2, foretell=foretell)
    progress.on_train_begin()
    progress.on_epoch_begin(0)
    progress.on_train_batch_end(0)  # compiles, which says nothing of the others
    progress.on_train_batch_end(1)
    assert not asked
    progress._compiled = (progress._compiled[0] - 6, progress._compiled[1])
    progress.on_train_batch_end(2)
    progress.on_train_batch_end(3)
    ((seconds, left),) = asked
    assert left == 1_300 and seconds == pytest.approx(6 / 200, rel=0.05)
    assert capsys.readouterr().out.splitlines()[-1] == "Forecast: later"
