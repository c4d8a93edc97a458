"""What a run shows of its training before its test images are read: curves and model card."""

from transfer.plots.charts import plot_history
from transfer.plots.style import png
from transfer.report.card import model_card
from transfer.runs import files
from transfer.runs.facts import read_facts
from transfer.storage.atomic import write_atomically
from transfer.training.result import Result


def write_training_report(result: Result) -> None:
    """Writes learning_curves.png and the model card into the folder of a run.

    Args:
        result: what the run came to.
    """
    run_dir = result.run_dir
    facts = read_facts(run_dir)
    smoothing = facts.settings.label_smoothing
    write_atomically(run_dir / files.CURVES, png(plot_history(result.history, smoothing)))
    card = model_card(run_dir.resolve().name, facts, result.summary)
    write_atomically(run_dir / files.CARD, card)
