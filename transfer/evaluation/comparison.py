"""Runs beside each other: which are comparable, which differ, which are repeats of one another."""

import json
from collections.abc import Sequence

from transfer import console
from transfer.errors import InputError
from transfer.evaluation.evaluated import (
    EvaluatedRun,
    evaluate_run,
    have_same_test_images,
    is_comparable,
)
from transfer.evaluation.significance import PairedComparison, Repeats, compare_pairs
from transfer.runs.facts import Facts
from transfer.runs.finished import FinishedRun
from transfer.runs.folder import finished_runs

MOST_IN_PAIRS = 4  # runs, which make six pairs


def compare_runs(
    evaluated: Sequence[EvaluatedRun], *, against_first: bool = True
) -> list[PairedComparison]:
    """Compares runs that were tested on the same images as the first of them.

    Args:
        evaluated: the runs.
        against_first: the first with each other one; else every two, and of more than
            `MOST_IN_PAIRS`, whose pairs nobody would read, the best with each other one.
    """
    first, *others = evaluated
    comparable = [first, *(run for run in others if is_comparable(first, run))]
    if not against_first:
        comparable.sort(key=lambda run: -run.metrics["accuracy"])
    return compare_pairs(
        [
            (run.name, run.predictions.y_prob.argmax(axis=1) == run.predictions.y_true)
            for run in comparable
        ],
        with_first_alone=against_first or len(comparable) > MOST_IN_PAIRS,
    )


def group_repeats(compared: Sequence[EvaluatedRun]) -> list[Repeats]:
    """Finds runs that differ in their seed alone, whether one command made them or several.

    Of two runs with the same seed the first counts. Ensembles are no repeats of each other.
    """
    groups: dict[str, dict[int, EvaluatedRun]] = {}
    for run in compared:
        if run.members or not is_comparable(compared[0], run):
            continue
        settings = run.facts.settings.to_dict()
        seed = settings.pop("seed")
        start = [run.facts.weights.name, run.facts.weights.provenance]
        key = json.dumps([settings, start, run.facts.precision, run.has_flips])
        groups.setdefault(key, {}).setdefault(seed, run)
    return [
        Repeats(
            model=model_name(next(iter(members.values()))),
            seeds=tuple(sorted(members)),
            accuracies=tuple(members[seed].metrics["accuracy"] for seed in sorted(members)),
            losses=tuple(members[seed].metrics["loss"] for seed in sorted(members)),
        )
        for members in groups.values()
        if len(members) > 1
    ]


def model_name(run: EvaluatedRun) -> str:
    """Returns what a run's model is called in a table: "vgg16, 32 px, from scratch"."""
    name = f"ensemble of {len(run.members)} runs" if run.members else _network_name(run.facts)
    return name + (", with flips" if run.has_flips else "")


def _network_name(facts: Facts) -> str:
    start = "from scratch" if facts.weights.name == "none" else f"{facts.weights.name} weights"
    return f"{facts.settings.backbone}, {facts.settings.image_size} px, {start}"


def evaluate_others(evaluated: Sequence[EvaluatedRun]) -> list[EvaluatedRun]:
    """Evaluates the other finished runs beside the first that saw the same test images.

    A run that cannot be evaluated any more is named and left out.
    """
    first = evaluated[0]
    known = {run.run_dir.resolve() for run in evaluated}
    others = []
    for run_dir in finished_runs(first.run_dir.parent):
        if run_dir.resolve() in known:
            continue
        try:
            run = FinishedRun(run_dir)
            if have_same_test_images(run.facts, first.facts):
                others.append(evaluate_run(run))
        except InputError as error:
            console.say(f"Left out of the table: {run_dir} ({error})")
    return others
