"""Pretraining a backbone on images made from formulas: no photograph, no label, no licence.

Where ImageNet weights cannot be had, a backbone can still learn edges, textures and shapes
before it sees the first image of a task. `textures` draws backgrounds, `fractals` draws what
lies on them, `composition` puts both together on the device, `pretrain` trains.

The walk runs on the TensorFlow and on the JAX backend of Keras, and nothing in this folder
imports TensorFlow by itself: a machine with a GPU and JAX alone can pretrain.
"""
