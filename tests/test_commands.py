"""The commands' conduct: help at once, every option documented, exit codes, who wins over whom."""

import ast
import gc
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

import transfer
from tests.conftest import make_facts
from transfer import backend, console
from transfer.backend import load_keras
from transfer.commands import cache, exit_codes, options
from transfer.commands.main import COMMANDS, load_command
from transfer.commands.main import main as group
from transfer.config import Config, groups, settings
from transfer.errors import InputError, Interrupted
from transfer.models.backbones import BACKBONES
from transfer.models.counts import ClassifierCounts, NetworkCounts
from transfer.runs import files
from transfer.runs.facts import PhaseSummary, Summary, read_facts
from transfer.runs.predictions import TEST, Predictions, keep_predictions
from transfer.storage.atomic import write_json
from transfer.storage.cache import FolderCache, list_caches
from transfer.training import run

ROOT = Path(__file__).parents[1]
HEAVY = ("tensorflow", "keras", "numpy", "matplotlib", "sklearn", "rich")
EACH = pytest.mark.parametrize("name", COMMANDS)
TRAIN, TUNE, EVALUATE = (load_command(name) for name in ("train", "tune", "evaluate"))
TRAIN_OPTIONS = """--backbone --data --weights --image-size --head-epochs --finetune-epochs
    --head-learning-rate --finetune-learning-rate --batch-size --optimizer --dropout --l2
    --label-smoothing --hidden-units --unfreeze --train-batch-norm --rotation-degrees
    --zoom-fraction --translation-fraction --no-flip --validation-fraction --plateau-patience
    --plateau-factor --early-stopping-patience --precision --limit --seed --config --run-dir
    --repeats --resume --offline --quiet --verbose""".split()
TUNE_OPTIONS = """--tuner --trials --objective --space --time-limit --role --address --id --backbone
    --limit --config --offline --quiet --verbose""".split()
EVALUATE_OPTIONS = "--report --json --all-baselines --measure-baselines --ensemble --tta".split()


def python(*arguments, cwd=ROOT, **environment):
    """Runs Python in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"} | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def parse(*arguments):
    """The Config that a script makes of these arguments."""
    made = []

    @click.command()
    @options.config_options
    def command(**values):
        made.append(options.make_config(values))

    command.main([str(argument) for argument in arguments], "train.py", standalone_mode=False)
    return made[0]


def exit_code(monkeypatch, command, *arguments):
    """The exit code of a script with these arguments."""
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        exit_codes.run(command)
    return stopped.value.code


def options_of(command):
    return [param for param in command.params if isinstance(param, click.Option)]


def raising(error):
    @click.command()
    def command():
        raise error

    return command


def another(name, setting):
    """A value that the setting takes and that is not its default."""
    default = getattr(Config(), name)
    if setting.kind is bool:
        return not default
    if name == "backbone":
        return list(BACKBONES)[-1]
    if setting.choices:
        return next(choice for choice in setting.choices if choice != default)
    if setting.kind is str:
        return f"some/{name}"
    return setting.kind(setting.minimum + (min(setting.maximum, 1_000) - setting.minimum) * 0.3)


OTHER = {name: another(name, setting) for name, setting in settings().items()}


@pytest.fixture
def saved(tmp_path):
    """A file in which no setting has its default."""
    path = tmp_path / "saved.json"
    path.write_text(json.dumps(OTHER))
    return path


# --- Help -----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)], ids=str)
def test_help_comes_at_once(words):
    # Seconds of computing: what a user waits on an idle machine, and the same on a busy one.
    taken = []
    while len(taken) < 3 and min(taken, default=1) >= 0.5:
        before = os.times()
        done = python("-m", "transfer", *words, "--help")
        after = os.times()
        taken.append(sum(after[2:4]) - sum(before[2:4]))
        assert done.returncode == 0 and done.stderr == ""
        assert done.stdout.startswith(" ".join(["Usage: python -m transfer", *words]))
    assert min(taken) < 0.5


@pytest.mark.parametrize("name", ["train", "tune", "evaluate"])
def test_a_script_is_the_command_in_three_lines(name):
    done = python(f"{name}.py", "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"Usage: {name}.py ")
    lines = [line for line in (ROOT / f"{name}.py").read_text().splitlines() if line.strip()]
    assert len(lines) == 3
    command = python("-m", "transfer", name, "--help").stdout
    assert done.stdout.splitlines()[1:] == command.splitlines()[1:]


def test_the_group_lists_every_command_with_what_it_does():
    text = python("-m", "transfer", "--help").stdout
    for name in COMMANDS:
        assert f"\n  {name} " in text
        assert load_command(name).get_short_help_str(40)[:30] in text
    assert group.get_command(click.Context(group), "nothing") is None


def test_the_installed_command_runs_from_any_folder(tmp_path):
    """As pip writes it: a script that calls the entry point named in pyproject.toml."""
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["transfer"]
    module, function = entry.split(":")
    code = f"import sys; sys.argv[0] = 'transfer'; from {module} import {function}; {function}()"
    done = python("-c", code, "runs", cwd=tmp_path)
    assert done.returncode == 1 and "runs should be a folder of runs" in done.stderr
    done = python("-c", code, "--version", cwd=tmp_path)
    assert done.stdout == f"transfer {transfer.__version__}\n"


@EACH
def test_nothing_heavy_is_imported_on_the_way_to_help(name):
    code = f"import sys, transfer.commands.{name}\nprint([m for m in {HEAVY} if m in sys.modules])"
    done = python("-c", code)
    assert ast.literal_eval(done.stdout) == [], done.stderr


def test_options_stand_in_groups_the_ones_that_matter_most_first():
    text = TRAIN.get_help(click.Context(TRAIN, max_content_width=100))
    titles = [line[:-1] for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    assert titles == [
        "The five that matter most",
        *(group.capitalize() for group in groups()),
        "This command",
    ]
    first = text[text.index(titles[0]) : text.index(titles[1])]
    matters = {name for name, setting in settings().items() if setting.matters_most}
    assert len(matters) == 5
    assert {options.option_name(name) for name in matters} == {
        word for word in first.split() if word.startswith("--")
    }
    for name, setting in settings().items():
        if bounds := setting.describe_bounds().strip():
            assert bounds in " ".join(text.split()), name


@pytest.mark.parametrize("words", [["MobileNetV2"], ["VGG16"]])
def test_a_choice_is_taken_in_any_case(words):
    assert parse("--backbone", *words).backbone == words[0].lower()
    assert parse("--optimizer", "AdamW").optimizer == "adamw"
    assert parse("--unfreeze", "ALL").unfreeze == "all"


@EACH
def test_every_option_has_a_help_text_and_a_value_shows_its_default(name):
    command = load_command(name)
    context = click.Context(command, show_default=command.context_settings.get("show_default"))
    lacking = []
    for option in options_of(command):
        assert option.help and option.help.strip().endswith("."), option.opts
        # A plain switch is off by default, and click shows nothing for it.
        plain_switch = option.is_flag and not option.get_default(context)
        if not plain_switch and "[default: " not in option.get_help_record(context)[1]:
            lacking.append(option.opts[-1])
    assert lacking == []
    assert command.help


def test_the_options_that_others_rely_on_are_there():
    for script, expected in (
        (TRAIN, TRAIN_OPTIONS),
        (TUNE, TUNE_OPTIONS),
        (EVALUATE, EVALUATE_OPTIONS),
    ):
        every = options_of(script)
        there = {name for option in every for name in option.opts + option.secondary_opts}
        assert set(expected) <= there
        assert {"--quiet", "--verbose"} <= there
    arguments = [param for param in EVALUATE.params if isinstance(param, click.Argument)]
    assert [(argument.nargs, argument.required) for argument in arguments] == [(-1, False)]


def test_the_help_lists_every_option_with_the_default_of_config():
    text = " ".join(python("train.py", "--help").stdout.split())
    for name in TRAIN_OPTIONS:
        assert f"{name} " in text
    by_name = {option.name: option for option in options_of(TRAIN)}
    for name, value in Config().to_dict().items():
        assert by_name[name].default == value
        if not isinstance(value, bool) and value is not None:
            shown = by_name[name].get_help_record(click.Context(TRAIN))[1]
            assert shown.endswith(f"[default: {value}]"), name


# --- From options to Config -----------------------------------------------------------------


def test_without_options_all_is_default():
    assert parse() == Config()


@pytest.mark.parametrize("name", settings())
def test_every_setting_can_be_given(name):
    if isinstance(OTHER[name], bool):
        option = "--no-flip" if name == "flip" else "--" + name.replace("_", "-")
        assert parse(option) == Config(**{name: OTHER[name]})
    else:
        value = OTHER[name]
        config = parse("--" + name.replace("_", "-"), value)
        assert config == Config(**{name: value})
        assert type(getattr(config, name)) is type(value)


def test_flip_can_be_turned_off_and_on():
    assert parse().flip and not parse("--no-flip").flip and parse("--no-flip", "--flip").flip


@pytest.mark.parametrize("text, value", [("auto", "auto"), ("1e-3", 1e-3), ("0.5", 0.5)])
def test_a_learning_rate_is_a_word_or_a_number(text, value):
    assert parse("--finetune-learning-rate", text).finetune_learning_rate == value


def test_unfreeze_is_all_or_a_share():
    assert parse("--unfreeze", "all").unfreeze == "all"
    assert parse("--unfreeze", "0.25").unfreeze == 0.25


def test_a_file_sets_everything(saved):
    assert all(OTHER[name] != value for name, value in Config().to_dict().items())
    assert parse("--config", saved) == Config(**OTHER)


def test_the_file_of_a_run_is_taken_too(tmp_path):
    path = tmp_path / files.CONFIG
    write_json(path, {"settings": OTHER, "versions": {}})
    assert parse("--config", path) == Config(**OTHER)


@pytest.mark.parametrize("name", [n for n, v in OTHER.items() if not isinstance(v, bool)])
def test_an_option_wins_over_the_file_also_with_the_default_and_in_any_order(saved, name):
    default = getattr(Config(), name)
    value = 7 if name == "limit" else default
    expected = Config(**(OTHER | {name: value}))
    option = "--" + name.replace("_", "-")
    assert parse("--config", saved, option, value) == expected
    assert parse(option, value, "--config", saved) == expected


def test_a_switch_wins_over_the_file(tmp_path, saved):
    assert parse("--config", saved, "--flip").flip
    path = tmp_path / "plain.json"
    path.write_text("{}")
    assert not parse("--config", path, "--no-flip").flip
    assert parse("--config", path, "--train-batch-norm").train_batch_norm


def test_what_neither_option_nor_file_says_is_the_backbones(tmp_path):
    for name in ("lenet5", "resnet9", "vgg16"):
        assert parse("--backbone", name) == Config(backbone=name)
        assert parse("--backbone", name, "--image-size", 96) == Config(backbone=name, image_size=96)
    path = tmp_path / "some.json"
    path.write_text('{"dropout": 0.4}')
    expected = Config(backbone="lenet5", dropout=0.4, seed=3)
    assert parse("--config", path, "--backbone", "lenet5", "--seed", 3) == expected
    path.write_text('{"backbone": "LeNet5", "dropout": 0.4}')
    assert parse("--seed", 3, "--config", path) == expected
    write_json(path, Config().to_dict())  # a run's, which says all
    assert parse("--config", path, "--backbone", "lenet5").image_size == 96


def test_train_hands_over_what_was_asked(monkeypatch, tmp_path, capsys):

    calls = []

    def stop(config, **given):
        calls.append((config, console.get().quiet, given))
        raise InputError("stopped here")

    monkeypatch.setattr(run, "train", stop)
    monkeypatch.setattr("transfer.commands.train.load_keras", lambda verbose: None)
    arguments = ["--seed", 7, "--no-flip", "--run-dir", tmp_path / "wished", "--offline"]
    assert exit_code(monkeypatch, TRAIN, *arguments) == 1
    ((config, quiet, given),) = calls
    assert config == Config(seed=7, flip=False) and not quiet
    assert given["run_dir"] == tmp_path / "wished" and given["offline"] is True
    assert given["show_network"] is None
    assert "--no-flip" in given["command"] and given["given"] == {"seed", "flip"}
    assert exit_code(monkeypatch, TRAIN, "--quiet") == 1
    config, quiet, given = calls[1]
    assert config == Config() and quiet
    assert given["run_dir"] is None and given["offline"] is False
    assert capsys.readouterr() == ("", "Error: stopped here\n" * 2)
    assert exit_code(monkeypatch, TRAIN, "--summary") == 1
    calls[-1][-1]["show_network"](ClassifierCounts(*[NetworkCounts(1, 2, 3)] * 2, {"head": 2}))
    assert "together" in capsys.readouterr().out


# --- Exit codes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-such-option"],
        ["surplus"],
        ["--batch-size"],
        ["--batch-size", "0"],
        ["--batch-size", "1.5"],
        ["--batch-size", "many"],
        ["--batch-size", "1" + "0" * 400],
        ["--dropout", "1"],
        ["--dropout", "nan"],
        ["--dropout", "1e999"],
        ["--rotation-degrees", "181"],
        ["--limit", "0"],
        ["--seed", "-1"],
        ["--unfreeze", "most"],
        ["--unfreeze", "0"],
        ["--finetune-learning-rate", "fast"],
        ["--optimizer", "magic"],
        ["--backbone", "resnet"],
        ["--head-epochs", "0", "--finetune-epochs", "0"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_wrong_usage_is_2_and_told_on_stderr(monkeypatch, capsys, arguments):
    assert exit_code(monkeypatch, TRAIN, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Error: " in err and "Traceback" not in err


def test_wrong_usage_names_the_option_what_it_takes_and_what_came(monkeypatch, capsys):
    exit_code(monkeypatch, TRAIN, "--dropout", "1.5")
    message = capsys.readouterr().err.splitlines()[-1]
    assert "--dropout" in message and "from 0 below 1" in message and "1.5" in message


@pytest.mark.parametrize(
    "command, words, meant",
    [
        (TRAIN, ["--lr", "0.1"], ["--head-learning-rate", "--finetune-learning-rate"]),
        (TRAIN, ["--epochs", "3"], ["--head-epochs", "--finetune-epochs"]),
        (TUNE, ["--learning_rate", "0.1"], ["--head-learning-rate"]),
        (TRAIN, ["--imgsz", "64"], ["--image-size"]),
        (TRAIN, ["--finetune-epoch", "3"], ["--finetune-epochs"]),
        (TRAIN, ["photos"], ["--data PATH"]),
        (load_command("audit"), ["photos"], ["--data PATH"]),
        (EVALUATE, ["--quiet"], ["--json", "--report"]),
        (group, ["trian"], ["train"]),
        (load_command("cache"), ["--clear"], ["Did you mean clear?"]),
        (load_command("weights"), ["fetch"], ["Missing argument", "mobilenetv2, vgg16"]),
        (TRAIN, ["--backbone", "ResNet"], ["resnet9", "resnet50v2"]),
        (load_command("export"), ["run", "--format", "tflite"], ["mean litert"]),
        (TUNE, ["--tuner", "bayes"], ["mean bayesian"]),
        (EVALUATE, ["run", "./run"], ["run is named twice"]),
        (load_command("compare"), ["run", "other", "run"], ["run is named twice"]),
        (load_command("look"), ["--html", "no/such/page.html"], ["folder no/such does not exist"]),
        (load_command("predict"), ["included", "x", "--csv", "no/x.csv"], ["folder no does not"]),
    ],
    ids=str,
)
def test_wrong_usage_suggests_what_was_meant(monkeypatch, capsys, command, words, meant):
    assert exit_code(monkeypatch, command, *words) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert all(word in message for word in meant), message


def test_wrong_usage_in_a_process_of_its_own():
    done = python("train.py", "--seed", "-1")
    assert done.returncode == 2 and done.stdout == "" and "Error: " in done.stderr
    done = python("evaluate.py", "--no-such-option")
    assert done.returncode == 2 and done.stdout == "" and "Error: " in done.stderr


def test_an_error_is_1_and_one_line_on_stderr(monkeypatch, capsys):
    assert exit_code(monkeypatch, raising(InputError("bad\nfile; mend it"))) == 1
    assert capsys.readouterr() == ("", "Error: bad\\nfile; mend it\n")


def test_an_error_of_click_is_1_and_one_line_on_stderr(monkeypatch, capsys):
    assert exit_code(monkeypatch, raising(click.FileError("given.json", "no entry"))) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("Error: ") and err.count("\n") == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_ctrl_c_is_130(monkeypatch, capsys, error):
    assert exit_code(monkeypatch, raising(error)) == 130
    out, err = capsys.readouterr()
    assert out == "" and err.strip() == "Stopped."


def test_done_is_0(monkeypatch):
    assert exit_code(monkeypatch, click.command()(lambda: None)) == 0
    assert exit_code(monkeypatch, TRAIN, "--help") == 0


@pytest.mark.parametrize("content", ["{", '{"sead": 1}', '{"seed": -1}', "[]", None])
def test_a_file_of_settings_that_cannot_be_used_is_1(monkeypatch, capsys, tmp_path, content):
    path = tmp_path / "given.json"
    if content is not None:
        path.write_text(content)
    assert exit_code(monkeypatch, TRAIN, "--config", path) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "given.json" in err


def test_evaluating_what_is_no_run_is_told_before_anything_slow(tmp_path):
    done = python(ROOT / "evaluate.py", "nowhere", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    assert "not a run folder" in done.stderr
    assert not list(tmp_path.iterdir())


# --- Console and log ------------------------------------------------------------------------


def test_no_color_is_obeyed(monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with console.speaking():
        console.show("text", style="red")
    assert "\x1b[31m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    with console.speaking():
        console.show("text", style="red")
    assert capsys.readouterr().out == "text\n"


def test_brackets_are_printed_as_they_are(capsys):
    with console.speaking():
        console.say("runs/[red] and [/b]")
    assert capsys.readouterr().out == "runs/[red] and [/b]\n"


def test_a_quiet_console_prints_nothing(capsys):
    with console.speaking(quiet=True):
        console.say("text")
    assert capsys.readouterr() == ("", "")
    with console.speaking():
        console.say("text")
    assert capsys.readouterr() == ("text\n", "")


def test_nobody_speaks_unless_let(capsys):
    console.say("text")
    assert capsys.readouterr() == ("", "")


def test_of_several_processes_only_the_first_speaks(monkeypatch, capsys):
    for number, told in (("0", "text\n"), ("1", "")):
        monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", number)
        with console.speaking():
            console.say("text")
        assert capsys.readouterr().out == told


def test_lines_are_not_folded_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    with console.speaking():
        console.say("word " * 30)
    assert capsys.readouterr().out.count("\n") == 1


def test_the_command_is_kept_so_that_it_can_be_typed_again(monkeypatch):
    for program, told in (
        ("train.py", "python train.py"),
        ("/usr/bin/transfer", "transfer"),
        ("/x/transfer/__main__.py", "python -m transfer"),
    ):
        monkeypatch.setattr(sys, "argv", [program, "--data", "my images"])
        assert console.command_line() == f"{told} --data 'my images'"


def test_what_to_type_next_is_said_in_the_way_this_user_calls_the_commands(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["evaluate.py"])
    assert console.how_to("runs") == "python -m transfer runs"
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert console.how_to("runs") == "transfer runs"
    for program, told in (
        ("train.py", "python evaluate.py 'my run'"),
        ("sub/train.py", "python sub/evaluate.py 'my run'"),
        ("/usr/bin/transfer", "transfer evaluate 'my run'"),
        ("/x/transfer/__main__.py", "python -m transfer evaluate 'my run'"),
        ("notebook.py", "transfer evaluate 'my run'"),
    ):
        monkeypatch.setattr(sys, "argv", [program])
        assert console.how_to("evaluate", "my run") == told


def test_the_libraries_log_is_shown_only_when_asked(tmp_path):
    for name in ("tensorflow", "keras"):
        # Native code writes to the descriptor itself, past sys.stderr.
        lines = (
            "import os, types",
            "os.write(2, b'noise')",
            "class Anything:\n    def __getattr__(self, name): return lambda *given: 'tensorflow'",
            "config = backend = Anything()",
        )
        (tmp_path / f"{name}.py").write_text("\n".join(lines))
    code = "from transfer.backend import load_keras; import sys\nload_keras({})\n"
    code += "sys.stderr.write('end')"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    for verbose, told in ((False, "end"), (True, "noisenoiseend")):
        done = python("-c", code.format(verbose), PYTHONPATH=path, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", told)


@pytest.mark.parametrize("enabled", [True, False])
def test_what_the_user_said_of_the_garbage_collector_stays(enabled):
    before = gc.isenabled()
    try:
        gc.enable() if enabled else gc.disable()
        load_keras()
        assert gc.isenabled() == enabled
    finally:
        gc.enable() if before else gc.disable()


def test_in_a_command_keras_finds_nothing_that_it_loads_for_others(monkeypatch):
    seen, load = [], importlib.import_module
    names = ("jax", "pandas", "matplotlib")

    def look(name):
        seen.append({each for each in names if sys.modules.get(each, 0) is None})
        return load("keras" if name == "jax" else name)

    monkeypatch.setattr(backend, "_process_is_ours", False)
    monkeypatch.setattr(importlib, "import_module", look)
    for each in names:
        monkeypatch.delitem(sys.modules, each, raising=False)
    load_keras()
    assert seen and not any(seen)  # a notebook's Keras is not ours
    backend.claim_process()
    seen.clear()
    load_keras()
    assert seen and all(hidden == set(names) for hidden in seen)
    assert not any(each in sys.modules for each in names)  # and now they are there again
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(backend, "_check_backend", lambda there, wanted: None)
    seen.clear()
    load_keras()
    assert seen[0] == {"pandas", "matplotlib"}


@pytest.mark.parametrize("there", [(), ("click",)])
@pytest.mark.parametrize(
    "command", [("train.py",), ("evaluate.py",), ("tune.py",), ("-m", "transfer", "train")]
)
def test_before_anything_is_installed_every_command_says_how(command, there, tmp_path):
    for name in there:
        shutil.copytree(Path(sys.modules[name].__file__).parent, tmp_path / name)
    bare = [sys.executable, "-S", *command]  # without site-packages
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(bare, cwd=ROOT, env=environment, capture_output=True, text=True)
    missing = "'click'" if not there else ""
    assert re.fullmatch(
        rf"Error: No module named {missing}.*; run `pip install [^\n]+\n", done.stderr
    )
    assert done.returncode == 1 and done.stdout == ""


def test_missing_libraries_are_told_with_the_mend(monkeypatch, capfd):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")  # restored afterwards
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(InputError, match="pip install -r requirements.txt"):
        load_keras()
    os.write(2, b"still there")
    assert capfd.readouterr().err == "still there"


# --- Resuming -------------------------------------------------------------------------------


@pytest.fixture
def resumed(monkeypatch):
    """Takes the place of training and keeps what it was asked to resume."""

    asked = {}

    def resume(run_dir, **arguments):
        asked.update(arguments, run_dir=run_dir)
        raise InputError("enough")

    monkeypatch.setattr(run, "resume", resume)
    return asked


def test_resume_takes_the_newest_unfinished_run_or_the_one_named(
    monkeypatch, tmp_path, resumed, saved
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    make_facts(Config()).write(tmp_path / "runs" / "a")
    assert exit_code(monkeypatch, TRAIN, "--resume", "--offline") == 1
    assert resumed["run_dir"] == Path("runs/a") and resumed["given"] == {}
    assert exit_code(monkeypatch, TRAIN, "--resume", "other", "--seed", 0) == 1
    # What was typed counts as given, also where it is the default; so does what a file says.
    assert resumed["run_dir"] == Path("other") and resumed["given"] == {"seed": 0}
    assert exit_code(monkeypatch, TRAIN, "--resume", "other", "--config", saved) == 1
    assert resumed["given"] == OTHER


def test_resume_with_a_new_folder_is_wrong_usage(monkeypatch, capsys):
    assert exit_code(monkeypatch, TRAIN, "--resume", "a", "--run-dir", "b") == 2
    assert "leave --run-dir out" in capsys.readouterr().err


def test_resume_with_repeats_is_wrong_usage(monkeypatch, capsys):
    assert exit_code(monkeypatch, TRAIN, "--resume", "a", "--repeats", 2) == 2
    assert "leave --repeats out" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_said_and_its_exit_code_is_the_shells(monkeypatch, capsys, number):
    error = Interrupted(number, "Stopped. To go on: ...")
    assert exit_code(monkeypatch, raising(error)) == 128 + number
    assert capsys.readouterr().err == "Stopped. To go on: ...\n"
    # Where it would be broken anyhow, the command stands on a line of its own, to be copied.
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "20")
    assert exit_code(monkeypatch, raising(error)) == 128 + number
    assert capsys.readouterr().err == "Stopped.\nTo go on: ...\n"


def test_tune_takes_several_backbones_and_what_a_file_says_is_searched(saved):
    names = list(BACKBONES)
    several = [word for name in names[:2] for word in ("--backbone", name)]
    for words, backbones in (([], (OTHER["backbone"],)), (several, tuple(names[:2]))):
        arguments = ["--config", str(saved), "--dropout", "0.3", *words]
        ctx = TUNE.make_context("tune.py", arguments)
        assert ctx.params["backbone"] == backbones
        assert ctx.params["batch_size"] == OTHER["batch_size"]
        given = options.given_options(ctx, set(settings()))
        assert given == {"dropout"} | ({"backbone"} if words else set())


def test_requirements_are_what_the_commands_and_the_tests_need():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    parts = ("train", "tune", "audit", "export", "app", "shards", "test")
    needed = project["dependencies"] + [
        line for part in parts for line in extras[part] if line != "transfer[train]"
    ]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line and line[0] != "#"] == needed
    install = next(
        line for line in (ROOT / ".ci/run").read_text().splitlines() if '--quiet ".[' in line
    )
    assert set(install.split("[")[1].split("]")[0].split(",")) == set(extras)


def path_types():
    for name in COMMANDS:
        for param in load_command(name).params:
            if isinstance(param.type, click.Path):
                yield name, param.name, param.type


def test_a_tilde_is_the_home_in_every_path_of_every_command(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    kinds = list(path_types())
    assert len(kinds) >= 7
    for name, param, kind in kinds:
        assert kind.convert("~/x", None, None) == tmp_path / "x", (name, param)


def test_a_folder_of_runs_is_found_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    result = CliRunner().invoke(load_command("runs"), ["~/mine"])
    assert result.exit_code == 0 and f"No run in {tmp_path}/mine/." in result.output


def all_commands():
    for name in COMMANDS:
        command = load_command(name)
        yield from (command, *getattr(command, "commands", {}).values())


def test_upper_and_lower_case_of_choices_do_not_matter():
    choices = [
        parameter.type
        for command in all_commands()
        for parameter in command.params
        if isinstance(parameter.type, click.Choice)
    ]
    assert len(choices) >= 10
    for choice in choices:
        for word in choice.choices:
            assert choice.convert(str(word).upper(), None, None) == word


# --- Runs beside each other, and the disk ------------------------------------------------------


def write_run(run_dir, right, **settings):
    """Writes the small files of a finished run of 40 test images, so many of them right."""
    facts = make_facts(Config(**settings))
    facts.write(run_dir)
    (run_dir / files.MODEL).write_bytes(b"a model")
    phase = PhaseSummary(3, 2, 0.4, 0.8, 65.0)
    Summary({"fine-tune": phase}, 70.0, {}).write(run_dir)
    y_true = np.arange(40) % 2
    y_prob = np.eye(2, dtype=np.float32)[np.where(np.arange(40) < right, y_true, 1 - y_true)]
    keep_predictions(run_dir, read_facts(run_dir), Predictions(y_true, y_prob), TEST)
    return str(run_dir)


@pytest.fixture
def two(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, right, rate in (("a", 39, 1e-4), ("b", 24, 1e-3)):
        (tmp_path / name).mkdir()
        write_run(tmp_path / name, right, optimizer="adamw", finetune_learning_rate=rate)
    return ["a", "b"]


def test_compare_shows_what_differs_beside_what_came_of_it(two):
    shown = CliRunner().invoke(group, ["compare", *two]).stdout
    assert re.search(r"^test accuracy +97\.50 % +60\.00 %$", shown, re.MULTILINE), shown
    assert re.search(r"^training time +1 min 10 s +1 min 10 s$", shown, re.MULTILINE)
    assert re.search(r"^finetune_learning_rate +0\.0001 +0\.001 *$", shown, re.MULTILINE)
    assert "optimizer" not in shown  # the same in both
    assert f"{two[0]} is better than {two[1]}: 97.50 % against 60.00 %" in shown


def test_compare_of_equal_runs_and_of_runs_that_were_not_evaluated(two):
    shutil.copytree(two[0], "copy")
    same = CliRunner().invoke(group, ["compare", two[0], "copy"]).stdout
    assert "made with the same settings" in same and "within noise" in same
    Path(two[1], files.PREDICTIONS).unlink()
    shown = CliRunner().invoke(group, ["compare", *two]).stdout
    assert re.search(r"^test accuracy +97\.50 % +–", shown, re.MULTILINE)
    assert re.search("^Next: .*transfer evaluate b$", shown, re.MULTILINE) and "noise" not in shown
    done = CliRunner().invoke(group, ["compare", two[0]])
    assert done.exit_code == 2 and "at least two runs" in done.stderr
    Path(two[1], files.SUMMARY).unlink()
    error = CliRunner().invoke(group, ["compare", *two]).exception
    assert isinstance(error, InputError) and "has not finished" in str(error)


def test_what_is_kept_is_listed_and_cleared_and_nothing_else(capsys):
    keeper = FolderCache("features", ".npy")
    path = keeper.path("some", "key")
    path.parent.mkdir(parents=True)
    with keeper.keep(path) as file:
        file.write(b"x" * 5_000)
    own = path.with_name("mine.txt")
    own.write_text("kept")
    assert list_caches()["features"] == (2, 5_064) and list_caches()["weights"] == (0, 0)
    shown = CliRunner().invoke(group, ["cache"]).stdout
    assert re.search(r"^features +2 +5\.1 kB", shown, re.MULTILINE) and "Together 5.1 kB" in shown
    CliRunner().invoke(group, ["cache", "clear", "weights"])
    assert path.exists()
    assert "features: 2 files, 5.1 kB freed" in CliRunner().invoke(group, ["cache", "clear"]).stdout
    assert not path.exists() and own.read_text() == "kept"


def test_a_large_cache_is_said(monkeypatch, capsys):
    monkeypatch.setattr(cache, "list_caches", lambda: {"features": (3, 1_200_000_000)})
    with console.speaking():
        cache.say_if_large()
        monkeypatch.setattr(cache, "list_caches", lambda: {"features": (3, 900_000_000)})
        cache.say_if_large()
    (line,) = capsys.readouterr().out.splitlines()
    assert "has grown to 1.2 GB" in line and line.endswith("cache clear")


def test_the_image_of_docker_takes_what_is_there_and_runs_without_rights_or_network():
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines() if line]
    steps = [words for words in lines if words[0] != "#"]
    for words in steps:
        if words[0] == "COPY":
            assert all((ROOT / name).exists() for name in words[1:-1])
    order = [words[0] for words in steps]
    assert order[0] == "FROM" and order.index("USER") > max(
        number for number, word in enumerate(order) if word == "RUN"
    )
    assert ["USER", "user"] in steps and steps[-2][0] == "ENTRYPOINT"
    assert any("TRANSFER_OFFLINE=1" in words for words in steps if words[0] == "ENV")
    assert steps[0][1] in {f"python:3.{minor}-slim" for minor in (11, 12, 13)}
