"""A search, top to bottom: data, weights, space, project folder, trials, results.

    tuning/<backbone>-<fingerprint>/
        search.json         what is searched; its fingerprint is part of the folder's name
        trials.csv          one row a trial
        best.json           settings for `train.py --config`, from the best trial so far
        search.png          the trials as lines through their values
        oracle.json         what the search method knows
        trial_0000/         trial.json, and run/: the run folder of the trial
        lock                held by the process that searches

A search goes on where it stopped when the same command is given again. Several processes share
one through KerasTuner's chief and workers (`parallel.py`).
"""

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import math
import shlex
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras_tuner
from filelock import Timeout
from keras_tuner.engine.trial import TrialStatus

from transfer import console, signals
from transfer.config import Config
from transfer.data.splits import Loaded
from transfer.errors import InputError, Interrupted, shortened
from transfer.formatting import format_seconds
from transfer.models.backbones import check_image_size
from transfer.models.fingerprints import fingerprint_variables
from transfer.models.weights import Weights, check_weights, load_backbone
from transfer.plots.style import png
from transfer.recipes import get_recipe
from transfer.storage.atomic import read_json, remove_leftovers, write_atomically, write_json
from transfer.storage.locks import lock_at_once
from transfer.training.data import Data, load_data, suit_to_images
from transfer.training.defaults import settle
from transfer.training.features import CACHE
from transfer.training.heads import HeadStart, prepare_heads
from transfer.training.interruption import StopAfterStep
from transfer.tuning import display, parallel, plots, results
from transfer.tuning import space as spaces
from transfer.tuning.deadline import Deadline
from transfer.tuning.oracles import PROJECT, RECORD, TRIAL_PREFIX, Plan, make_oracle
from transfer.tuning.processes import Died, Processes
from transfer.tuning.trials import TrialContext, TrialResult, full_budget, run_shared_trial

FOLDER = Path("tuning")
FACTS, LOCK = "search.json", "lock"
LOCAL = "local"  # name of the only worker of a search in one process


@dataclass(frozen=True)
class SearchOptions:
    """What the user asked for.

    Attributes:
        config: the settings of the first trial, and of all where they are not searched.
        given: names of the settings that the user gave as options, which are not searched.
        kept: names of those that stay whatever the number of images; None for all.
        backbones: to choose among; the first is that of `config`.
        tuner: one of `oracles.TUNERS`.
        trials: the search ends with so many, the user's own settings among them.
        objective: "val_accuracy" or "val_loss".
        space: fixes or narrows dimensions, as `spaces.parse_space` returns it; or None.
        time_limit: seconds.
        command: that goes on with this search.
        offline: never use the network.
        arrays: images in memory, in place of `config.data`.
    """

    config: Config
    given: frozenset[str]
    kept: frozenset[str] | None
    backbones: tuple[str, ...]
    tuner: str
    trials: int
    objective: str
    space: Mapping[str, Any] | None = None
    time_limit: float = math.inf
    command: str = "python tune.py"
    offline: bool = False
    arrays: Loaded | None = None


def search(options: SearchOptions) -> Path:
    """Searches in this process alone, or goes on with what is left of the same search.

    Returns:
        The path of best.json.

    Raises:
        InputError: something given cannot be used, every trial failed, or the time was too short.
        Interrupted: Ctrl-C or SIGTERM came.
    """
    deadline = Deadline(options.time_limit)
    with _processes() as processes:
        data, plan = _prepare(options, processes)
        _share_context(plan, data, options, processes)
        with _project(plan, options) as oracle:
            with _told(options, plan, oracle, data, deadline), deadline:
                work(oracle, plan, processes, LOCAL, deadline)
    return plan.folder / results.BEST


def lead(options: SearchOptions, address: str) -> Path:
    """Hands out trials to workers, and runs none; arguments and errors as `search`.

    Args:
        options: what is searched.
        address: HOST:PORT to listen on.
    """
    deadline = Deadline(options.time_limit)
    with Processes() as processes:
        data, plan = _prepare(options, processes)
    with _project(plan, options) as oracle:
        with _told(options, plan, oracle, data, deadline):
            parallel.serve(oracle, address, deadline)
    return plan.folder / results.BEST


def follow(options: SearchOptions, address: str, worker: str) -> None:
    """Runs the trials that a chief hands out, until it has no more.

    Args:
        options: the same as the chief's.
        address: HOST:PORT of the chief.
        worker: a name of its own; started again under it, it begins with the trial it ran.

    Raises:
        InputError: the chief does not answer, or searches something else.
        Interrupted: Ctrl-C or SIGTERM came.
    """
    try:
        with _processes() as processes:
            data, plan = _prepare(options, processes)
            _share_context(plan, data, options, processes)
            plan.folder.mkdir(parents=True, exist_ok=True)
            console.say(f"Worker {worker} of the chief at {address}, in {plan.folder}")
            with parallel.connection(address, worker) as oracle:
                _check_same_search(oracle, plan)
                work(oracle, plan, processes, worker, Deadline(options.time_limit))
    except (Interrupted, KeyboardInterrupt) as error:
        raise Interrupted(
            getattr(error, "number", signal.SIGINT),
            f"Stopped. Start it again under the same --id to go on: {options.command}",
        ) from error
    console.say("The chief has no more trials.")


@contextlib.contextmanager
def _processes() -> Iterator[Processes]:
    # A stop kills the trial that runs, whose features may be half written.
    try:
        with Processes() as processes:
            yield processes
    finally:
        CACHE.remove_leftovers()


def work(oracle: Any, plan: Plan, processes: Processes, worker: str, deadline: Deadline) -> None:
    """Runs trials until there are no more, or time is up.

    Args:
        oracle: KerasTuner's, or the client of one.
        plan: of the search.
        processes: have what all trials share.
        worker: name of this process among others.
        deadline: when to stop.
    """
    while not deadline.passed:
        with StopAfterStep():  # a signal waits for the record to be whole
            trial = oracle.create_trial(worker)
        if trial.status == TrialStatus.STOPPED:
            return
        if trial.status == TrialStatus.IDLE:  # waits for trials of other workers
            time.sleep(1)
            continue
        config = results.trial_config(plan.config, plan.space, trial.hyperparameters.values)
        folder = plan.folder / f"{TRIAL_PREFIX}{trial.trial_id}"
        try:
            record = processes.call(run_shared_trial, config, folder, worker)
        except Died as error:
            record = TrialResult(config.to_dict(), worker=worker, reason=f"{error}; out of memory?")
        with StopAfterStep():
            trial.status = TrialStatus.FAILED if record.reason else TrialStatus.COMPLETED
            trial.hyperparameters.values[RECORD] = record.to_text()
            oracle.end_trial(trial)


def _check_same_search(oracle: Any, plan: Plan) -> None:
    theirs = next(each.value for each in oracle.get_space().space if each.name == PROJECT)
    if theirs != plan.project:
        raise InputError(
            f"the chief searches {theirs} and this worker {plan.project}: start both with the same "
            "options, space file, data and weights."
        )


def _prepare(options: SearchOptions, processes: Processes) -> tuple[Data, Plan]:
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("tensorboard is missing; run `pip install -r requirements.txt`.")
    said = dict(options.space or {})
    if len(options.backbones) > 1:
        said = {"backbone": spaces.Choices(options.backbones)} | said
    config = spaces.fix(options.config, said)
    if config.folds:
        raise InputError("--folds is for train: a search compares on the validation images.")
    check_image_size(config.backbone, config.image_size)
    check_weights(config.weights)
    data = load_data(config, options.offline, with_test=False, arrays=options.arrays)
    kept = None if options.kept is None else options.kept | said.keys()
    config = suit_to_images(config, data, kept)
    backbones = said.get("backbone")
    names = backbones.values if isinstance(backbones, spaces.Choices) else (config.backbone,)
    _say_recipes(names, config)
    weights = {}
    for name in names:
        weights[name] = processes.call(_take_weights, name, config, options.offline)
        taken = weights[name][0]
        console.say(
            f"Weights of {name}: {taken.provenance if console.is_verbose() else taken.short}"
        )
    return data, _make_plan(config, options, said, data, weights)


def _say_recipes(names: Sequence[str], config: Config) -> None:
    if any(get_recipe(name) != get_recipe(config.backbone) for name in names):
        console.say(
            f"What is not given is the default of {config.backbone}, also for the others: "
            f"image_size {config.image_size}, batch_size {config.batch_size} and so on."
        )


def _make_plan(
    config: Config,
    options: SearchOptions,
    said: dict,
    data: Data,
    taken: dict[str, tuple[Weights, str]],
) -> Plan:
    settled = [
        settle(dataclasses.replace(config, backbone=name), weights)
        for name, (weights, _) in taken.items()
    ]
    rates = [float(each.finetune_learning_rate) for each in settled]
    from_scratch = not any(weights.pretrained for weights, _ in taken.values())
    default = spaces.default_space(config, rates, from_scratch=from_scratch)
    space = spaces.make_space(config, default, said, options.given, objective=options.objective)
    facts = {
        "tuner": options.tuner,
        "objective": options.objective,
        "space": spaces.to_json(space),
        "settings": config.to_dict(),
        "data": {name: data.fingerprints[name] for name in ("train", "validation")},
        "weights": {name: digest for name, (_, digest) in taken.items()},
    }
    return Plan(
        FOLDER / f"{'+'.join(taken)}-{_fingerprint(facts)}",
        options.tuner,
        options.objective,
        space,
        config,
        own=dataclasses.replace(
            config, finetune_learning_rate=rates[0], hidden_units=settled[0].hidden_units
        ),
        budget=full_budget(config),
        facts=facts,
    )


def _share_context(plan: Plan, data: Data, options: SearchOptions, processes: Processes) -> None:
    # Where only heads are trained, the backbone's features are made or read once for all trials.
    heads = {}
    if not plan.config.finetune_epochs:
        flip = plan.config.flip or "flip" in plan.space
        for name in plan.facts["weights"]:
            config = dataclasses.replace(plan.config, backbone=name, flip=flip)
            quiet = console.get().quiet
            heads[name] = processes.call(_prepare_heads, config, data, options.offline, quiet)
    processes.share(TrialContext(data, options.offline, heads))


def _prepare_heads(config: Config, data: Data, offline: bool, quiet: bool) -> HeadStart:
    with console.speaking(quiet):
        return prepare_heads(config, data, offline=offline)


def _take_weights(name: str, config: Config, offline: bool) -> tuple[Weights, str]:
    # What every trial of this backbone will start from, and its SHA-256.
    backbone, weights = load_backbone(name, config.image_size, config.weights, offline=offline)
    return weights, fingerprint_variables(backbone.weights) if weights.pretrained else "random"


def _fingerprint(facts: dict) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


@contextlib.contextmanager
def _project(plan: Plan, options: SearchOptions) -> Iterator[keras_tuner.Oracle]:
    """Makes the project's folder or takes it up again, and holds its lock."""
    is_new = not (plan.folder / FACTS).exists()
    differs = _differs_from_newest(plan) if is_new else None
    plan.folder.mkdir(parents=True, exist_ok=True)
    try:
        with lock_at_once(plan.folder / LOCK):
            if is_new:
                started = datetime.now(UTC).isoformat(timespec="seconds")
                facts = plan.facts | {"command": options.command, "started": started}
                write_json(plan.folder / FACTS, facts)
            for folder in (plan.folder, *plan.folder.glob(f"{TRIAL_PREFIX}*")):
                remove_leftovers(folder, ".+", alone=True)  # workers write further down
            oracle = make_oracle(plan, most_trials=options.trials)
            _tell_plan(plan, options, oracle)
            if differs:
                console.say(differs)
            yield oracle
    except Timeout as error:
        raise InputError(
            f"{plan.folder} is being searched by another process; wait for it, or share the "
            "search: --role chief and --role worker."
        ) from error


def _differs_from_newest(plan: Plan) -> str | None:
    # Why the same folder is not taken up again.
    there = [path for path in FOLDER.glob(f"*/{FACTS}") if path.is_file()]
    others = sorted(there, key=lambda path: path.stat().st_mtime_ns)
    if not others:
        return None
    try:
        was = read_json(others[-1])
    except InputError:
        return None
    changes = []
    for part, now in plan.facts.items():
        before = was.get(part)
        if before == now:
            continue
        if isinstance(now, dict) and isinstance(before, dict):
            names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
            changes.append(f"{part} ({shortened(', '.join(names))})")
        else:
            changes.append(f"{part} ({shortened(before)}, now {now})")
    return f"A new search, not that of {others[-1].parent}: it differs in {', '.join(changes)}."


def _tell_plan(plan: Plan, options: SearchOptions, oracle: keras_tuner.Oracle) -> None:
    for name, dimension in plan.space.items():
        console.say(f"  {name}: {spaces.describe(dimension)}")
    rows = results.read_rows(oracle)
    ended = sum(row.record is not None for row in rows)
    text = f"Search: {plan.tuner}, {options.trials} trials, for the best {plan.objective}"
    if plan.tuner == "grid":
        text += f", of {spaces.grid_size(plan.space):,} combinations in order"
    console.say(f"{text}; in {plan.folder}")
    if rows:
        console.say(
            f"Going on: {ended} trials have ended, {len(rows) - ended} to be run again.",
        )


@contextlib.contextmanager
def _told(
    options: SearchOptions,
    plan: Plan,
    oracle: keras_tuner.Oracle,
    data: Data,
    deadline: Deadline,
) -> Iterator[None]:
    # However the search ends: what is kept, what it came to, how to go on.
    try:
        with display.Display(oracle, options.trials):
            yield
    except (Interrupted, KeyboardInterrupt) as error:
        if not deadline.passed:
            rows = results.read_rows(oracle)
            ended = sum(row.record is not None for row in rows)
            raise Interrupted(
                getattr(error, "number", signal.SIGINT),
                f"Stopped. {ended} finished trials are in {plan.folder}. "
                f"To go on: {options.command}",
            ) from error
    rows = results.read_rows(oracle)
    if deadline.passed:
        signals.forget()
        console.say(
            f"Time limit of {format_seconds(options.time_limit)} reached; the same command with "
            "another limit goes on.",
        )
    _finish(plan, rows, data)


def _finish(plan: Plan, rows: Sequence[results.Row], data: Data) -> None:
    results.write_results(plan.folder, rows, plan)
    if not any(row.finished for row in rows):
        reason = results.first_reason(rows)
        if reason is None:
            raise InputError("no trial finished within the time; give a longer --time-limit.")
        raise InputError(f"every trial failed, the first because {reason}.")
    picture = plots.plot_trials(rows, plan)
    write_atomically(plan.folder / results.PICTURE, png(picture))
    console.show(display.top_table(rows, plan))
    for line in results.describe_best(rows, plan.objective, data.splits.validation.num_images):
        console.say(line)
    console.say(f"Everything is in {plan.folder}: {results.TRIALS}, {results.PICTURE}")
    best = shlex.quote(str(plan.folder / results.BEST))
    console.say(f"Next: python train.py --config {best}")
