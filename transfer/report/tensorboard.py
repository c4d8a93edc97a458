"""Pictures of a report for TensorBoard, beside the curves of the training."""

from collections.abc import Sequence
from pathlib import Path

from transfer.report.document import Picture

FOLDER = "report"  # within the run's logs
SHOWN = ("confusion_matrix_counts", "confusion_matrix_shares", "sample_predictions")


def log_pictures(logs: Path, pictures: Sequence[object]) -> None:
    """Writes some pictures of a report for TensorBoard, in place of those of an older report.

    Nothing where Keras computes with another backend, or there is no picture to show.

    Args:
        logs: folder of the run's logs.
        pictures: blocks of the report.
    """
    from transfer.evaluation.explain import can_explain

    chosen = [one for one in pictures if isinstance(one, Picture) and one.name in SHOWN]
    if not chosen or not can_explain():
        return
    import tensorflow as tf

    folder = logs / FOLDER
    older = list(folder.glob("events.out.tfevents.*"))
    with tf.summary.create_file_writer(str(folder)).as_default():
        for one in chosen:
            pixels = tf.io.decode_png(one.png, channels=3)
            tf.summary.image(one.name, pixels[tf.newaxis], step=0, description=one.caption)
    for path in older:
        path.unlink(missing_ok=True)
