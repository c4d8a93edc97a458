"""Images on their way from what a data set holds to batches: splits, decode, augment, pipeline."""
