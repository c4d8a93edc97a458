"""The prediction pass of `evaluate.py` beside `model.predict` on the model as Keras builds it."""

from benchmarks.interleaved import KERAS, Measurement, Settings, take_turns
from benchmarks.pipelines import make_images
from benchmarks.steps import NUM_CLASSES, build_untrained
from transfer.config import Config
from transfer.data.pipeline import make_evaluation_dataset
from transfer.evaluation.predictions import predict_split
from transfer.models.folding import fold_classifier
from transfer.models.precision import choose_inference_precision

HERE, STOCK = "here: the pass of evaluate.py", "Keras: model.predict, unfolded float32"


def measure_prediction(settings: Settings) -> Measurement:
    """Returns images/s of a whole prediction pass, the reading and resizing included."""
    split = make_images(settings.num_images)
    config = Config(
        backbone=settings.backbone,
        image_size=settings.image_size,
        batch_size=settings.batch_size,
    )
    stock_model = build_untrained(settings)
    folded = fold_classifier(stock_model, choose_inference_precision(settings.backbone)[0])

    def ours() -> int:
        return len(predict_split(folded, split, config))

    def stock() -> int:
        # The same batches: only the model differs.
        batches = make_evaluation_dataset(
            split, settings.image_size, settings.batch_size, NUM_CLASSES
        )
        return len(stock_model.predict(batches, verbose=0))

    contenders = {HERE: ours}
    if KERAS in settings.against:
        contenders[STOCK] = stock
    return Measurement(
        f"Prediction pass over {split.num_images:,} images: {settings.backbone}, "
        f"{settings.image_size} pixels, batch {settings.batch_size}",
        take_turns(contenders, settings.repeats),
        ((HERE, STOCK),),
    )
