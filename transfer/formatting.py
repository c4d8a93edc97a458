"""How numbers are written for people, the same wherever they are printed."""

from collections.abc import Callable, Sequence
from statistics import fmean


def format_percent(share: float) -> str:
    """Returns a share in [0, 1] as "93.00 %"."""
    return f"{100 * share:.2f} %"


def format_count(count: int, noun: str) -> str:
    """Returns how many there are: "1 photo", "2,000 photos"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_seconds(seconds: float) -> str:
    """Returns a duration as people say it: "8.2 s", "3 min 05 s", "2 h 07 min"."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_about(seconds: float) -> str:
    """Returns a duration that is not known to the second: "40 s", "12 min", "2 h 10 min"."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def format_throughput(photos: int, seconds: float) -> str:
    """Returns how fast photos were answered: "1,250 photos/s (8.2 s)"."""
    return f"{photos / max(seconds, 1e-9):,.0f} photos/s ({format_seconds(seconds)})"


def format_spread(values: Sequence[float], write: Callable[[float], str] = format_percent) -> str:
    """Returns what repeats came to: "mean 93.00 %, min 92.80 %, max 93.20 %, n = 3"."""
    mean, low, high = (write(value) for value in (fmean(values), min(values), max(values)))
    return f"mean {mean}, min {low}, max {high}, n = {len(values)}"


def format_large(count: int) -> str:
    """Returns a count of many as "2.3 million", a smaller one with all digits."""
    for word, size in (("billion", 1e9), ("million", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {word}"
    return f"{count:,}"


def format_bytes(count: int) -> str:
    """Returns a size as "12.3 MB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"


def format_age(seconds: float) -> str:
    """Returns how long ago something was: "3 min", "5 h", "12 d"."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
