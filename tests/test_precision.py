"""Number formats: the rule of "auto" on every kind of machine, and a choice that is exact."""

import keras
import pytest

import transfer.machine
from transfer.models import precision
from transfer.models.precision import AMX, AVX512, choose_inference_precision, choose_precision


@pytest.fixture
def machine(monkeypatch):
    """Makes the rule believe in a machine."""

    def pretend(flags=(), accelerator=False):
        monkeypatch.setattr(precision, "has_accelerator", lambda: accelerator)
        monkeypatch.setattr(transfer.machine, "cpu_flags", lambda: frozenset(flags))

    return pretend


@pytest.mark.parametrize(
    ("backbone", "accelerator", "flags", "training", "inference"),
    [
        ("mobilenetv2", True, [], "mixed_bfloat16", "mixed_bfloat16"),
        ("mobilenetv2", False, [AMX, AVX512], "bfloat16_gradients", "mixed_bfloat16"),
        ("mobilenetv2", False, [AVX512], "bfloat16_gradients", "mixed_bfloat16"),
        ("mobilenetv2", False, [], "float32", "float32"),
        ("mobilenetv3small", False, [AMX, AVX512], "float32", "float32"),
        ("vgg16", False, [AMX, AVX512], "mixed_bfloat16", "mixed_bfloat16"),
        ("vgg16", False, [AVX512], "mixed_bfloat16", "mixed_bfloat16"),
        ("resnet9", False, [AVX512], "mixed_bfloat16", "mixed_bfloat16"),
        ("vgg16", False, [], "float32", "float32"),
    ],
)
def test_auto_follows_the_rule(backbone, accelerator, flags, training, inference, machine):
    machine(flags, accelerator)
    for choose, expected in ((choose_precision, training), (choose_inference_precision, inference)):
        policy, reason = choose(backbone)
        assert policy == expected and reason


def test_gradients_in_bfloat16_are_tensorflows_alone(machine, monkeypatch):
    machine([AVX512])
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert choose_precision("mobilenetv2")[0] == "float32"


@pytest.mark.parametrize("choose", [choose_precision, choose_inference_precision])
def test_an_explicit_choice_is_exact(choose, machine):
    machine([AMX, AVX512], accelerator=True)
    assert choose("vgg16", "float32")[0] == "float32"
    machine()
    assert choose("mobilenetv2", "bfloat16")[0] == "mixed_bfloat16"
