from click.testing import CliRunner

from benchmarks import __main__ as benchmarks
from benchmarks.__main__ import make_ways, measure


def test_every_way_runs_and_is_measured(tiny_backbone):
    rates = measure(make_ways(tiny_backbone, 32, 8), 8, repeats=2)
    assert len(rates) == 6
    assert all(len(values) == 2 and min(values) > 0 for values in rates.values())


def test_the_command_in_the_readme_prints_medians_and_ratios(monkeypatch):
    names = ("training: as Keras builds it", "training: other", "inference: as Keras builds it")
    asked = []

    def make_trivial_ways(*arguments):
        asked.append(arguments)
        return {name: lambda: None for name in names}

    monkeypatch.setattr(benchmarks, "make_ways", make_trivial_ways)
    result = CliRunner().invoke(benchmarks.main, ["--image-size", "64", "--repeats", "3"])
    assert result.exit_code == 0
    assert asked == [("mobilenetv2", 64, 128)]
    assert all(name in result.output for name in names)
    assert result.output.count("1.00 x") >= 2
