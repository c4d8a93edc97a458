"""The two phases of a training run: the head on frozen features, then fine-tuning."""
