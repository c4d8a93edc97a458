"""The documentation: its commands run or parse, its links lead somewhere, its tables are true.

Commands in `sh` blocks are run one after another on small data (but for those that install, lint,
measure or kill); every other command, in a block or in a line, is parsed by the command itself.
"""

import ast
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import io
import itertools
import json
import os
import re
import shlex
import tomllib
from dataclasses import dataclass

import click
import pytest
from matplotlib.figure import Figure
from PIL import Image

import transfer
from tests.test_end_to_end import (
    QUICK,
    REPOSITORY,
    run_command,
    use_small_networks,
    write_colour_folder,
)
from transfer import api
from transfer.commands import main as group
from transfer.config import Config, settings
from transfer.deploy.predict import Answer
from transfer.runs import facts

README = REPOSITORY / "README.md"
PAGES = [README, REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
NOTEBOOK = REPOSITORY / "docs" / "tour.ipynb"
MOST_WORDS = 900  # of the README

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(?:^|&& |\s{2,})((?:python|transfer|pip) [^&]+)")
PLACEHOLDERS = {"S": "1", "N": "2", "MINUTES": "5", "NAME": "vgg16", "RUN": "runs/first"}
SCRIPTS = ("train.py", "evaluate.py", "tune.py")


@dataclass(frozen=True)
class Command:
    """A command as it is documented."""

    page: str
    line: str
    kind: str  # of its block: "sh", "text" or "console"; "" in a line

    def __str__(self):
        return f"{self.page}: {self.line}"


@functools.cache
def read(page):
    return page.read_text(encoding="utf-8")


def prose(page):
    """Returns a page without its fenced blocks."""
    return _FENCE.sub("", read(page))


def inline_code(page):
    """Returns what stands between backticks in the lines of a page."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def blocks(page, *kinds):
    """Returns (kind, text) of the fenced blocks of some kinds, continued lines joined."""
    found = _FENCE.findall(read(page))
    return [(kind, text.replace("\\\n", " ")) for kind, text in found if kind in kinds]


def commands_of(page):
    """Returns all commands of a page, those of one line apart."""
    lines = [
        (kind, line.removeprefix("$ "))
        for kind, text in blocks(page, "sh", "text", "console")
        for line in text.splitlines()
    ]
    lines += [
        ("", re.sub(r"^(train|evaluate|tune)\.py ", r"python \g<0>", code))
        for code in inline_code(page)
    ]
    return [
        Command(page.name, " ".join(command.split()), kind)
        for kind, line in lines
        for command in _COMMAND.findall(line.split(" # ")[0])
    ]


ALL_COMMANDS = list(dict.fromkeys(itertools.chain(*map(commands_of, PAGES))))


# --- Every command is one that there is -----------------------------------------------------


def alternatives(line):
    """Yields the words of a command for each of its `a|b`, placeholders replaced."""
    options = [
        [PLACEHOLDERS.get(one, one) for one in re.sub(r"<\w+>", "name", word).split("|")]
        for word in shlex.split(line)
    ]
    yield from map(list, itertools.product(*options))


def parse(words, config_file):
    """Fails where a command would refuse its words.

    Args:
        words: of the command.
        config_file: stands for any `--config FILE.json`.
    """
    for index, word in enumerate(words[:-1]):
        if word == "--config":
            words[index + 1] = str(config_file)
    if words[:2] == ["pip", "install"]:
        parse_install(words[2:])
    elif words[0] == "transfer":
        parse_click(group.main, words[1:])
    elif words[0] == "python" and words[1].endswith(".py"):
        assert words[1] in SCRIPTS and (REPOSITORY / words[1]).is_file()
        parse_click(group.load_command(words[1].removesuffix(".py")), words[2:])
    elif words[:3] == ["python", "-m", "transfer"]:
        parse_click(group.main, words[3:])
    elif words[:3] == ["python", "-m", "pytest"]:
        named = [word for word in words[3:] if word.startswith("tests")]
        assert all((REPOSITORY / word).exists() for word in named)
    elif words[:2] == ["python", "-m"]:
        parse_module(words[2], words[3:])
    else:
        raise AssertionError("unknown kind of command")


def parse_click(command, words):
    if isinstance(command, click.Group) and not words:
        return  # its help
    context = parse_one(command, words)
    if context and isinstance(command, click.Group):
        name, *rest = context._protected_args + context.args
        inner = command.get_command(context, name)
        assert inner, f"no command {name}"
        parse_one(inner, rest)


def parse_one(command, words):
    try:
        return command.make_context("command", list(words))
    except click.exceptions.Exit as end:  # --help, --version
        assert end.exit_code == 0
        return None


def parse_module(name, words):
    package = name.split(".")[0]
    assert importlib.util.find_spec(name), f"no module {name}"
    if package not in ("tools", "benchmarks"):
        return
    path = f"{name}.__main__" if (REPOSITORY / name / "__main__.py").is_file() else name
    main = getattr(importlib.import_module(path), "main", None)
    if isinstance(main, click.Command):
        parse_click(main, words)
    elif options := [word for word in words if word.startswith("-")]:
        with pytest.raises(SystemExit):  # argparse: told with the options that there are
            main([*words, "--help"])
        # `--help` is obeyed before later errors only, so each option is looked up as well.
        source = inspect.getsource(importlib.import_module(name))
        assert all(f'"{option}"' in source for option in options)


def parse_install(words):
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for word in words:
        if match := re.fullmatch(r"\.\[(.+)\]", word):
            assert set(match[1].split(",")) <= set(extras["optional-dependencies"])
        elif word.endswith(".txt"):
            assert (REPOSITORY / word).is_file()
        else:
            assert re.fullmatch(r"-r|-e|\.|[a-z]+", word)


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(Config().to_dict()))
    return path


@pytest.mark.parametrize("command", ALL_COMMANDS, ids=str)
def test_every_command_parses(command, config_file, capsys):
    for words in alternatives(command.line):
        parse(words, config_file)


@pytest.mark.parametrize(
    "line",
    [
        "python train.py --no-such-option",
        "python train.py --image-size 15",
        "python -m transfer nosuch",
        "transfer tune --tuner nosuch",
        "transfer runs one two",
        "python -m benchmarks --only nosuch",
        "python -m benchmarks.nosuch",
        "python -m tools.kill_training --kill 3",
        "python -m tools.stop_commands --kills 3",
        "python -m tools.fuzz_data --forms npz",
        "python predict.py",
        'pip install ".[nosuch]"',
    ],
)
def test_a_wrong_command_would_be_found(line, config_file, capsys):
    with pytest.raises((AssertionError, click.UsageError, pytest.fail.Exception)):
        parse(shlex.split(line), config_file)


def test_the_commands_are_found():
    found = {(command.page, command.kind) for command in ALL_COMMANDS}
    assert {("README.md", "sh"), ("README.md", ""), ("search.md", "text")} <= found
    assert len(ALL_COMMANDS) > 50


def test_every_option_named_is_one_of_a_command():
    known = {
        "--check",
        "--all-files",
        "--engine",
        "--quick",
        "--only",
        "--kills",
        "--stops",
        "--history",
        "--plot",
    }  # of tools
    for name in group.COMMANDS:
        for parameter in group.load_command(name).params:
            known |= {*parameter.opts, *parameter.secondary_opts}
    for page in PAGES:
        for code in inline_code(page):
            if code.startswith("--"):
                assert set(re.findall(r"--[a-z][\w-]*", code)) <= known | {"--help"}, (page, code)


# --- The commands of the blocks run ---------------------------------------------------------


def test_the_set_up_commands_are_those_of_ci():
    install, test = "pip install -r requirements.txt", "python -m pytest"
    first = blocks(README, "sh")[0][1].splitlines()
    assert first == [
        f"{install} && python train.py --backbone mobilenetv2",
        f"{install} && {test}",
    ]
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert test in script and "-r requirements.txt" in script


def runnable(line):
    """Returns the words of a command that the walk runs, None of one that is only parsed."""
    words = shlex.split(line)
    if words[0] == "transfer" or words[:3] == ["python", "-m", "transfer"]:
        return ["python", "transfer/__main__.py", *words[words.index("transfer") + 1 :]]
    return words if words[0] == "python" and words[1] in SCRIPTS else None


def made_small(words):
    """Returns a command as the walk runs it: of an option given twice the last one counts."""
    if words[1] == "train.py" and "--resume" not in words:
        return [*words, *QUICK, "--quiet"]
    if words[1] == "tune.py":
        return [*words, *QUICK, "--trials", "2", "--quiet"]
    return [*words, "--limit", "30"] if "audit" in words else words


def draw_nothing():
    """Leaves out the drawing of pictures, most of a report's time: `test_recompute.py` has it."""
    use_small_networks()
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    Figure.savefig = lambda figure, file, **options: file.write(buffer.getvalue())


# A page may use what the pages before it have made, and a command that is there twice runs once.
WALK = (
    "README.md",
    "evaluation.md",
    "results.md",
    "deploy.md",
    "training.md",
    "data.md",
    "search.md",
    "speed.md",
    "reliability.md",
    "CONTRIBUTING.md",
)


def test_the_commands_of_pages_run_one_after_another(tmp_path):
    write_colour_folder(tmp_path / "photos", shuffled=False, num_images=20)
    lines = dict.fromkeys(
        command.line
        for name in WALK
        for command in ALL_COMMANDS
        if (command.page, command.kind) == (name, "sh")
    )
    ran = [words for words in map(runnable, lines) if words]
    for words in ran:
        if "--resume" in words:  # as if the newest run had been killed before its end
            max(tmp_path.glob("runs/*/summary.json"), key=os.path.getmtime).unlink()
        expect = int("fetch" in words)  # there is no network here, which is told
        run_command(made_small(words), tmp_path, expect, prepare=draw_nothing)
    assert {"train.py", "evaluate.py", "transfer/__main__.py"} <= {words[1] for words in ran}


def test_no_page_is_left_out_of_the_walks():
    left_out = {page.name for page in PAGES if blocks(page, "sh")} - {*WALK}
    assert not left_out


# --- Links, words, Python -------------------------------------------------------------------

LINKED = [*PAGES, REPOSITORY / "CHANGELOG.md"]


def slugs(path):
    """Returns the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def check_links(text, folder):
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in found:
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = folder / name if name else None
        assert target is None or target.exists(), link
        if anchor and target:
            assert anchor in slugs(target), link
    return len(found)


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_and_pictures_are_there(page):
    check_links(prose(page), page.parent)


def test_links_are_found_and_broken_ones_told():
    assert check_links(prose(README), README.parent) > 15
    for link in ("[x](docs/nosuch.md)", "[x](docs/data.md#nosuch)", '<img src="nosuch.png">'):
        with pytest.raises(AssertionError):
            check_links(link, REPOSITORY)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_are_there(page):
    for code in inline_code(page):
        if re.fullmatch(r"(transfer|tests|tools|docs|benchmarks)/[\w./-]*", code):
            assert (REPOSITORY / code).exists(), code


def test_the_readme_is_short():
    assert len(read(README).split()) <= MOST_WORDS


def python_calls(text):
    """Yields (name, keywords) of each call of a public function of the package."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "transfer":
                yield node.func.attr, [keyword.arg for keyword in node.keywords]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_is_that_of_the_package(page):
    for _, text in blocks(page, "python"):
        for name, keywords in python_calls(text):
            parameters = inspect.signature(getattr(transfer, name)).parameters
            assert name in transfer.__all__
            assert set(keywords) <= {*parameters, *settings()}, (name, keywords)
    for code in inline_code(page):
        if match := re.match(r"transfer\.(\w+)", code):
            assert match[1] in transfer.__all__, code


@pytest.mark.parametrize("kind", [api.Run, api.Evaluation, Answer])
def test_what_a_run_can_do_is_listed(kind):
    page = read(REPOSITORY / "docs" / "python.md")
    table = page.split(f"| `{kind.__name__}` | |\n")[1].split("\n\n")[0]
    cells = [line.split(" | ")[0] for line in table.splitlines()[1:]]
    listed = {name for cell in cells for name in re.findall(r"`(\w+)", cell)}
    attributes = set(re.findall(r"^    (\w+): ", inspect.cleandoc(kind.__doc__), re.MULTILINE))
    assert listed == attributes | {name for name in vars(kind) if not name.startswith("_")}


# --- Tables that the code has too -----------------------------------------------------------


def accepted(setting):
    """Returns what a setting accepts, as the page writes it."""
    if setting.choices:
        return f"one of {', '.join(setting.choices)}"
    if setting.kind in (bool, str):
        return {bool: "yes or no", str: "a text"}[setting.kind]
    text = "a whole number" if setting.kind is int else "a number"
    for bound, is_open, words in (
        (setting.minimum, setting.open_minimum, (" above ", " from ")),
        (setting.maximum, setting.open_maximum, (" below ", " to ")),
    ):
        if abs(bound) != float("inf"):
            text += words[not is_open] + str(bound)
    return text + "".join(f" or `{word}`" for word in setting.words)


@pytest.mark.parametrize("name", settings())
def test_the_table_of_settings_is_that_of_the_config(name):
    setting, default = settings()[name], getattr(Config(), name)
    option = name.replace("_", "-")
    table = read(REPOSITORY / "docs" / "training.md").split("## Settings")[1].splitlines()
    row = next(line for line in table if line.startswith(f"| `--{option}`")).split(" | ")
    assert row[1] == {None: "all images", True: "yes", False: "no"}.get(
        default if default is None or isinstance(default, bool) else "", f"`{default}`"
    )
    assert row[2] == ("a backbone of the list above" if name == "backbone" else accepted(setting))


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        (facts.Facts, ""),
        (facts.DataFacts, "data."),
        (facts.Geometry, "data.geometry."),
        (facts.WeightsFacts, "weights."),
        (facts.RepeatsFacts, "repeats."),
        (facts.NetworkCounts, "network."),
        (facts.Summary, ""),
        (facts.PhaseSummary, "phases.*."),
        (facts.FoldSummary, "folds.*."),
    ],
)
def test_every_field_of_a_run_is_explained(kind, prefix):
    page = read(REPOSITORY / "docs" / "architecture.md")
    for field in dataclasses.fields(kind):
        assert f"\n| `{prefix}{field.name}` |" in page


def imports_of(path):
    """Yields the rooms of the package that a module imports from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
            if node.module == "transfer":
                names = [f"transfer.{alias.name}" for alias in node.names]
            yield from (name.split(".")[1] for name in names if name.startswith("transfer."))


def test_imports_run_as_the_page_says():
    page = read(REPOSITORY / "docs" / "architecture.md")
    text = page.split("## Which way imports run")[1].split("```")[1].removeprefix("text\n")
    rank = {
        room: (len(line) - len(line.lstrip())) // 4
        for line in text.splitlines()
        for room in line.strip().split(", ")
    }
    lowest, seen = max(rank.values()), 0
    for path in (REPOSITORY / "transfer").rglob("*.py"):
        room = path.relative_to(REPOSITORY / "transfer").parts[0].removesuffix(".py")
        for other in imports_of(path):
            if room in rank and other in rank and room != other:
                assert rank[other] > rank[room] or rank[other] == lowest, (path, other)
                seen += 1
    assert seen > 100 and "commands" in rank


def test_the_changelog_has_this_version():
    version = transfer.__version__.split(".dev")[0]
    assert f"\n## {version} " in read(REPOSITORY / "CHANGELOG.md")


# --- The notebook ---------------------------------------------------------------------------


def test_the_notebook_is_kept_without_outputs():
    notebook = json.loads(read(NOTEBOOK))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
        else:
            check_links("".join(cell["source"]), NOTEBOOK.parent)


def test_the_notebook_runs_anywhere_and_shows_pictures(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="the notebook needs nbclient")
    pytest.importorskip("ipykernel", reason="the notebook needs ipykernel")
    nbformat = pytest.importorskip("nbformat", reason="the notebook needs nbformat")
    folder, temporary = tmp_path / "anywhere", tmp_path / "temporary"
    for path in (folder, temporary):
        path.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 3
    assert any("text/markdown" in output.get("data", {}) for output in outputs)
    assert not list(folder.iterdir())  # all that it writes is in its temporary folder
    assert list(temporary.glob("transfer-tour-*/runs/*/report/report.html"))
