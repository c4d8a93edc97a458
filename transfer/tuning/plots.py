"""The picture of a search: each trial a line through the values it took, to its score."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from transfer.plots.fonts import PlainFigure
from transfer.plots.style import BLUE, GRAY, VERMILLION
from transfer.tuning import results
from transfer.tuning.oracles import Plan
from transfer.tuning.results import Row
from transfer.tuning.space import Choices, Range, format_value

_MOST_AXES = 8  # settings side by side, those that tell most of the score
_FEWEST_TRIALS = 5  # from which a setting's importance is more than chance
_TRIALS_A_SETTING = 3  # of fewer the picture says that importances are chance
_WIDTH_EACH = 1.25  # inches for each axis
_NEIGHBOUR = 0.03  # by which lines through the same choice are spread


def plot_trials(rows: Sequence[Row], plan: Plan) -> Figure:
    """Plots bars of how much each setting tells of the score, and the trials below.

    The trials are lines across parallel axes: one for each setting, of more than eight those that
    tell most, and the last one for the score.

    Args:
        rows: all trials, at least one with a score.
        plan: of the search.

    Returns:
        A figure; a better trial is darker, the best one a thick line, that of the user's own
        settings dashed, a failed one dotted, without an end at the score. Values outside of the
        space stand at its edge.
    """
    weights = measure_importance(rows, plan)
    names = list(weights)[:_MOST_AXES] or list(plan.space)[:_MOST_AXES]
    width = max(7.0, _WIDTH_EACH * (len(names) + 1))
    bars_height = 0.9 + 0.24 * len(weights) if weights else 0.0
    figure = PlainFigure(figsize=(width, 6 + bars_height), layout="constrained")
    if weights:
        bars, axes = figure.subplots(2, 1, height_ratios=(bars_height, 6))
        _draw_importance(bars, weights, len(results.sort_rows(rows, plan.objective)))
    else:
        axes = figure.subplots()
    _draw_trials(axes, rows, plan, names)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure


def measure_importance(rows: Sequence[Row], plan: Plan) -> dict[str, float]:
    """Returns how much of the scores each setting tells, the largest first.

    Args:
        rows: all trials.
        plan: of the search.

    Returns:
        For each dimension a share in [0, 1]: of numbers the rank correlation with the score, of
        choices the share of the scores' deviation that lies between them. Empty of fewer than
        `_FEWEST_TRIALS`, which say nothing of it.
    """
    scored = results.sort_rows(rows, plan.objective)
    if len(scored) < _FEWEST_TRIALS:
        return {}
    scores = np.argsort(np.argsort([_score(row, plan) for row in scored]))
    weights = {}
    for name, dimension in plan.space.items():
        configs = [plan.own if row.is_own else row.config for row in scored]
        places = np.array([_height(dimension, getattr(config, name)) for config in configs])
        weights[name] = _tell_share(places, scores, isinstance(dimension, Choices))
    return dict(sorted(weights.items(), key=lambda item: -item[1]))


def _tell_share(places: np.ndarray, scores: np.ndarray, are_choices: bool) -> float:
    if np.ptp(places) == 0:
        return 0.0
    if are_choices:
        means = np.array([scores[places == place].mean() for place in places])
        return float(means.std() / scores.std())
    return float(abs(np.corrcoef(np.argsort(np.argsort(places)), scores)[0, 1]))


def _draw_importance(axes: Axes, weights: Mapping[str, float], num_trials: int) -> None:
    names = [name.replace("_", " ") for name in weights]
    bars = axes.barh(names, list(weights.values()), color=BLUE, height=0.7)
    axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
    axes.invert_yaxis()
    title = "How much each setting tells of the score (0: nothing, 1: all)"
    if num_trials < _TRIALS_A_SETTING * len(weights):
        title += f"\nmostly chance: {num_trials} trials are few for {len(weights)} settings"
    axes.set(xlim=(0, 1.05), title=title)
    axes.tick_params(axis="y", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_trials(axes: Axes, rows: Sequence[Row], plan: Plan, names: Sequence[str]) -> None:
    plan = dataclasses.replace(plan, space={name: plan.space[name] for name in names})
    best_first = results.sort_rows(rows, plan.objective)
    scores = np.array([_score(row, plan) for row in best_first])
    ends = (scores.min(), scores.max()) if np.ptp(scores) else (scores[0] - 1, scores[0] + 1)
    for row in (row for row in rows if row.failed):
        _draw(axes, row, plan, None, {"color": GRAY, "ls": ":", "lw": 1, "label": "failed"})
    shade = Normalize(0, max(1, len(best_first) - 1))
    for rank in reversed(range(len(best_first))):  # the best on top
        colour = colormaps["cividis"](shade(rank))
        style: dict[str, Any] = {"color": colour, "lw": 1.2, "alpha": 0.85}
        row = best_first[rank]
        if row.is_own:
            style |= {"color": "black", "ls": "--", "lw": 2, "label": "your own settings"}
        if rank == 0:
            style |= {"color": VERMILLION, "lw": 3, "alpha": 1}
            style["label"] = "the best trial" + (": your own settings" if row.is_own else "")
        _draw(axes, row, plan, (scores[rank] - ends[0]) / (ends[1] - ends[0]), style)
    _label(axes, plan, ends)
    title = f"{len(rows)} trials: the values they took and their {_score_name(plan)[0]}"
    axes.set_title(f"{title} (darker is better)")


def _score(row: Row, plan: Plan) -> float:
    score = getattr(row.score, plan.objective)
    return 100 * score if plan.objective == "val_accuracy" else score


def _score_name(plan: Plan) -> tuple[str, str]:
    if plan.objective == "val_accuracy":
        return "validation accuracy", "validation\naccuracy (%)"
    return "validation loss", "validation\nloss (nats)"


def _draw(axes: Axes, row: Row, plan: Plan, score: float | None, style: dict) -> None:
    config = plan.own if row.is_own else row.config
    heights = [_height(dimension, getattr(config, name)) for name, dimension in plan.space.items()]
    # Lines through the same choice are told apart by a small shift of their own.
    shift = _NEIGHBOUR * ((row.number * 0.618) % 1 - 0.5)
    heights = [
        height + shift if isinstance(dimension, Choices) else height
        for height, dimension in zip(heights, plan.space.values(), strict=True)
    ]
    heights += [] if score is None else [score]
    axes.plot(range(len(heights)), heights, **style)


def _height(dimension: Choices | Range, value: object) -> float:
    value = dimension.nearest(value)
    if isinstance(dimension, Choices):
        return dimension.values.index(value) / (len(dimension.values) - 1)
    low, high = dimension.minimum, dimension.maximum
    if dimension.log:
        return float(np.log(value / low) / np.log(high / low))
    return (value - low) / (high - low)


def _label(axes: Axes, plan: Plan, ends: tuple[float, float]) -> None:
    style: dict[str, Any] = {"fontsize": 8, "ha": "left", "va": "center"}
    white = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    for place, dimension in enumerate(plan.space.values()):
        axes.axvline(place, color="black", lw=0.8)
        for value in dimension.grid() if isinstance(dimension, Range) else dimension.values:
            height = _height(dimension, value)
            axes.text(place + 0.04, height, format_value(value), bbox=white, zorder=5, **style)
    axes.axvline(len(plan.space), color="black", lw=0.8)
    digits = 2 if plan.objective == "val_accuracy" else 4
    for height, value in zip((0, 1), ends, strict=True):
        axes.text(len(plan.space) + 0.04, height, f"{value:.{digits}f}", **style)
    titles = [name.replace("_", "\n") for name in plan.space] + [_score_name(plan)[1]]
    axes.set_xticks(range(len(titles)), titles, fontsize=8)
    axes.set_yticks([])
    axes.set_xlim(-0.2, len(plan.space) + 0.6)
    axes.spines[:].set_visible(False)
