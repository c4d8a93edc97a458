import keras
import numpy as np

from transfer.models.backbones import build_backbone
from transfer.models.recalibration import batch_norm_layers, recalibrate


def test_the_statistics_become_those_of_all_the_images():
    backbone = keras.Sequential([keras.Input((None, None, 2)), keras.layers.BatchNormalization()])
    batches = np.random.default_rng(0).normal(3, 2, (5, 8, 4, 4, 2)).astype("float32")
    recalibrate(backbone, batches)
    _, _, mean, variance = backbone.get_weights()
    np.testing.assert_allclose(mean, batches.mean((0, 1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(variance, batches.var((0, 1, 2, 3)), rtol=1e-4)


def test_nothing_else_moves(tiny_backbone):
    backbone = build_backbone(tiny_backbone, 32)
    layers = batch_norm_layers(backbone)
    statistics = {id(v) for layer in layers for v in (layer.moving_mean, layer.moving_variance)}
    before = [(v, v.numpy()) for v in backbone.weights]
    momenta = [layer.momentum for layer in layers]
    recalibrate(backbone, np.random.default_rng(0).uniform(-1, 1, (2, 8, 32, 32, 3)))
    for variable, value in before:
        assert np.array_equal(variable.numpy(), value) == (id(variable) not in statistics)
    assert [layer.momentum for layer in layers] == momenta
    assert len(layers) == 4
