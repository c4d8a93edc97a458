"""How large a classifier is, for who wants to know before it trains, and for its model card."""

from transfer.formatting import format_percent
from transfer.models.counts import ClassifierCounts, NetworkCounts
from transfer.report.document import Block, Heading, Paragraph, Table

TITLE = "Network"


def network_section(counts: ClassifierCounts) -> list[Block]:
    """Returns the table of backbone and head, and what each phase trains of them."""
    parts = {"backbone": counts.backbone, "head": counts.head, "together": counts.whole}
    header = ("part", "layers with weights", "parameters", "size as float32", "multiply-adds")
    rows = [_cells(name, part) for name, part in parts.items()]
    return [
        Heading(TITLE),
        Table(header, (False, *[True] * 4), rows),
        *([Paragraph(_tell_trained(counts))] if counts.trained else []),
    ]


def _cells(name: str, part: NetworkCounts) -> tuple[str, ...]:
    return name, f"{part.layers:,}", f"{part.parameters:,}", part.size, f"{part.multiply_adds:,}"


def _tell_trained(counts: ClassifierCounts) -> str:
    parameters = max(counts.whole.parameters, 1)
    trained = ", ".join(
        f"the {phase} phase trains {count:,} ({format_percent(count / parameters)})"
        for phase, count in counts.trained.items()
    )
    return (
        f"Of the {parameters:,} parameters {trained}. Multiply-adds are those of convolutions and "
        "dense layers for one image."
    )
