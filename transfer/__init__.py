"""Fine-tune pretrained image backbones and report honestly how good the result is."""

__version__ = "0.1.0"
