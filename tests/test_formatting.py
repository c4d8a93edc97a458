import pytest

from transfer.formatting import format_percent, format_seconds, format_spread


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0.0 s"),
        (8.2, "8.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (60, "1 min 00 s"),
        (185, "3 min 05 s"),
        (119.6, "2 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7620, "2 h 07 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_durations_are_told_as_people_say_them(seconds, text):
    assert format_seconds(seconds) == text


def test_percent_has_two_digits_and_a_space():
    assert format_percent(0.93) == "93.00 %"
    assert format_percent(0.123456) == "12.35 %"


def test_repeats_are_told_with_mean_min_max_and_n():
    assert format_spread([0.93, 0.94, 0.95]) == "mean 94.00 %, min 93.00 %, max 95.00 %, n = 3"
    assert format_spread([1, 2], "{:.1f}".format) == "mean 1.5, min 1.0, max 2.0, n = 2"
