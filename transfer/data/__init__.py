"""Images on their way from files to batches: sources, decode, augment, pipeline."""
