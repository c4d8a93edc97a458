from benchmarks.__main__ import make_ways, measure


def test_every_way_runs_and_is_measured(tiny_backbone):
    rates = measure(make_ways(tiny_backbone, 32, 8), 8, repeats=2)
    assert len(rates) == 5
    assert all(len(values) == 2 and min(values) > 0 for values in rates.values())
