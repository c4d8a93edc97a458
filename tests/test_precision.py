import pytest

from transfer.models import precision
from transfer.models.precision import choose_precision, cpu_has_amx


@pytest.mark.parametrize(
    ("backbone", "accelerator", "cpu", "expected"),
    [
        ("mobilenetv2", True, False, "mixed_bfloat16"),
        ("mobilenetv2", False, True, "float32"),
        ("vgg16", False, True, "mixed_bfloat16"),
        ("vgg16", False, False, "float32"),
    ],
)
def test_auto_follows_the_rule(backbone, accelerator, cpu, expected, monkeypatch):
    monkeypatch.setattr(precision, "has_accelerator", lambda: accelerator)
    monkeypatch.setattr(precision, "cpu_has_amx", lambda: cpu)
    policy, reason = choose_precision(backbone)
    assert policy == expected and reason


def test_an_explicit_choice_is_exact(monkeypatch):
    monkeypatch.setattr(precision, "has_accelerator", lambda: True)
    assert choose_precision("vgg16", "float32")[0] == "float32"
    assert choose_precision("mobilenetv2", "bfloat16")[0] == "mixed_bfloat16"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu amx_bf16 amx_tile", True), ("fpu avx512_bf16", False), ("fpu avx512f", False)],
)
def test_cpu_flags(tmp_path, flags, expected):
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor : 0\nflags : {flags}\n")
    assert cpu_has_amx(path) is expected


def test_a_machine_without_cpuinfo_has_none(tmp_path):
    assert cpu_has_amx(tmp_path / "missing") is False
