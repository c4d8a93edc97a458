"""`transfer cache`: what is kept beside Keras's downloads, and how much room it takes."""

import click

from transfer import console
from transfer.commands import options
from transfer.formatting import format_bytes, format_count
from transfer.storage.cache import KINDS, LARGE, cache_home, clear_cache, list_caches


@click.group(invoke_without_command=True, context_settings=options.WIDTH)
@click.pass_context
def main(ctx: click.Context) -> None:
    """List what is kept on this machine for the next run, and how much room it takes."""
    from transfer.report.document import Table

    if ctx.invoked_subcommand:
        return
    console.speak()
    found = list_caches()
    cells = [
        (name, f"{count:,}", format_bytes(size), KINDS[name])
        for name, (count, size) in found.items()
    ]
    Table(("kept", "files", "size", "what it is"), (False, True, True, False), cells).show()
    total = format_bytes(sum(size for _, size in found.values()))
    console.say(f"Together {total}, in {cache_home()}")


@main.command(context_settings=options.WIDTH)
@click.argument(
    "kinds", metavar="[KIND]...", nargs=-1, type=click.Choice(list(KINDS), case_sensitive=False)
)
def clear(kinds: tuple[str, ...]) -> None:
    """Remove what is kept, all of it or what is named; what is needed again is computed again."""
    console.speak()
    counts = list_caches()
    for kind in kinds or KINDS:
        freed = clear_cache(kind)
        console.say(f"{kind}: {format_count(counts[kind][0], 'file')}, {format_bytes(freed)} freed")


def say_if_large() -> None:
    """Says how much is kept, where it is more than a gigabyte."""
    total = sum(size for _, size in list_caches().values())
    if total > LARGE:
        command = console.how_to("cache", "clear")
        console.say(f"{cache_home()} has grown to {format_bytes(total)}. To empty it: {command}")
