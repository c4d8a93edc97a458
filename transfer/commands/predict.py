"""`transfer predict`: what is on photos, with a confidence or "unknown"."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from transfer import console
from transfer.commands import options
from transfer.deploy.choices import INVERT
from transfer.formatting import format_count, format_throughput

MOST_NAMED = 40  # photos that could not be read, in a terminal; --csv and --json have all

if TYPE_CHECKING:
    from transfer.deploy.classifiers import Classifier
    from transfer.deploy.explain_photos import Explainer
    from transfer.deploy.predict import Answer, PredictOptions
    from transfer.deploy.shards import Shard


class ShardOf(click.ParamType):
    """A share of the photos: "I/N"."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the `Shard`, or fails with what is accepted."""
        from transfer.deploy.shards import parse_shard

        try:
            return parse_shard(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(context_settings=options.WIDTH)
@click.argument("model", metavar="MODEL")
@click.argument("photos", metavar="PHOTO...", nargs=-1, required=True)
@click.option(
    "--top",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Classes named of each.",
)
@click.option(
    "--csv",
    "csv_file",
    type=options.NewFile(),
    metavar="FILE",
    show_default="none",
    help="Write all answers as CSV.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the answers as JSON, for programs.")
@click.option(
    "--into",
    type=options.UserPath(file_okay=False),
    metavar="FOLDER",
    show_default="none",
    help="Copy the photos into a folder for each class, and unknown/.",
)
@click.option("--link", is_flag=True, help="With --into: links to the photos, no copies.")
@click.option(
    "--explain",
    type=options.UserPath(file_okay=False),
    metavar="FOLDER",
    show_default="none",
    help="Write pictures of what in each photo speaks for its class (Grad-CAM).",
)
@click.option("--tta", is_flag=True, help="The mean of each photo and its mirror image.")
@click.option(
    "--ensemble",
    multiple=True,
    metavar="MODEL",
    show_default="none",
    help="The mean with another model; may be given several times.",
)
@click.option(
    "--invert",
    type=click.Choice(INVERT, case_sensitive=False),
    default="auto",
    show_default=True,
    help="Make negatives: auto, of photos on white where it learnt from images on black.",
)
@click.option(
    "--shard",
    type=ShardOf(),
    show_default="all photos",
    help="With --csv: answer share I of N and write it into a file of its own, for job arrays.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    show_default="none",
    help="With --csv: answer in shards on a Ray cluster: local, auto or HOST:PORT.",
)
@options.conduct_options
def main(
    model: str,
    photos: tuple[str, ...],
    top: int,
    csv_file: Path | None,
    as_json: bool,
    into: Path | None,
    link: bool,
    explain: Path | None,
    tta: bool,
    ensemble: tuple[str, ...],
    invert: str,
    shard: "Shard | None",
    ray: str | None,
    quiet: bool,
    verbose: bool,
) -> None:
    """Name what is on photos.

    MODEL is a run folder, a file made by `transfer export`, or "included" for the model that
    comes with the package. PHOTO is a file, a folder with all below, or - for a list on stdin;
    Parquet, tar and TFRecord files stand for the photos in them, also as URLs (s3://...).

    A photo is "unknown" where the confidence is below the run's threshold, or where it is unlike
    everything that the model was trained on.
    """
    from transfer.deploy.opening import open_classifier, open_fastest
    from transfer.deploy.photos import is_inside
    from transfer.deploy.predict import PredictOptions, check_same_classes

    if link and into is None:
        raise click.UsageError("--link goes with --into FOLDER.")
    _check_shards(shard, ray, csv_file, as_json or into or explain)
    console.speak(quiet or as_json, verbose)
    paths = _find(photos)
    if (into or explain) and any(map(is_inside, paths)):
        raise click.UsageError("--into and --explain take photos that are files of their own.")
    open_one = open_classifier if explain else open_fastest  # gradients are TensorFlow's
    classifiers = [open_one(one) for one in (model, *ensemble)]
    check_same_classes(classifiers)
    if ray and csv_file:
        models = model, *ensemble
        _answer_on_ray(classifiers, models, paths, PredictOptions(2, tta, invert), ray, csv_file)
        return
    if shard and csv_file:
        _answer_shard(classifiers, paths, PredictOptions(2, tta, invert), shard, csv_file)
        return
    explainer = _explainer(classifiers[0], explain) if explain else None
    answers = _answer(classifiers, paths, PredictOptions(top, tta, invert, explainer))
    if as_json:
        click.echo(json.dumps([answer.to_json() for answer in answers], indent=2))
    _tell(answers, top, invert)
    _write(answers, classifiers[0].facts.class_names, csv_file, into, link)
    if all(answer.error for answer in answers):
        first = answers[0]
        raise click.ClickException(f"no photo could be read: {first.path}: {first.error}")


def _check_shards(
    shard: "Shard | None", ray: str | None, csv_file: Path | None, others: object
) -> None:
    if shard and ray:
        raise click.UsageError("--shard is for job arrays, --ray takes all shards: give one.")
    if (shard or ray) and (csv_file is None or others):
        option = "--shard" if shard else "--ray"
        raise click.UsageError(
            f"{option} goes with --csv FILE, without --json, --into and --explain."
        )


def _find(photos: tuple[str, ...]) -> tuple[str, ...]:
    from transfer.deploy.photos import find_photos

    found = find_photos(photos, inside=True)
    if found.passed_over:
        files = format_count(found.passed_over, "file")
        console.say(f"Passed over in the folders: {files} with no image's name.")
    if found.twice:
        console.say(f"Named twice, answered once: {format_count(found.twice, 'photo')}.")
    return found.paths


def _tell(answers: "list[Answer]", top: int, invert: str) -> None:
    from transfer.deploy.answers import answers_table, unreadable_lines
    from transfer.deploy.predict import count_answers

    if not all(answer.error for answer in answers):
        answers_table(answers, top).show()
    for line in unreadable_lines(answers)[:MOST_NAMED]:
        console.say(line)
    console.say(count_answers(answers))
    if inverted := sum(answer.inverted for answer in answers):
        photos = format_count(inverted, "photo")
        console.say(f"Made a negative first: {photos} (--invert {invert}).")


def _write(
    answers: "list[Answer]",
    class_names: tuple[str, ...],
    csv_file: Path | None,
    into: Path | None,
    link: bool,
) -> None:
    from transfer.deploy.answers import sort_photos, write_csv

    if csv_file:
        write_csv(answers, csv_file)
        console.say(f"Answers: {csv_file}")
    if into:
        count = format_count(sort_photos(answers, class_names, into, link=link), "photo")
        console.say(f"{'Linked' if link else 'Copied'} into {into}/: {count}")


def _explainer(classifier: "Classifier", folder: Path) -> "Explainer":
    if classifier.run is None:
        raise click.UsageError("--explain needs a run folder: an exported file has no gradients.")
    from transfer.deploy.explain_photos import explain_into

    return explain_into(classifier.run, folder)


def _answer(
    classifiers: "list[Classifier]", paths: tuple[str, ...], how: "PredictOptions"
) -> "list[Answer]":
    from transfer.deploy.predict import answer_photos

    with _counting(len(paths)) as tell:
        return list(answer_photos(classifiers, paths, how, tell))


def _answer_shard(
    classifiers: "list[Classifier]",
    paths: tuple[str, ...],
    how: "PredictOptions",
    shard: "Shard",
    csv_file: Path,
) -> None:
    from transfer.deploy.shards import answer_shard, describe_job, join_job

    join_job(describe_job(classifiers, paths, how, shard.count), csv_file)
    mine, path = shard.share(paths), shard.path(csv_file)
    started = time.perf_counter()
    with _counting(len(mine)) as tell:
        tally = answer_shard(classifiers, mine, how, path, tell)
    if tally is None:
        console.say(f"{str(shard).capitalize()} is done already: {path}")
        return
    console.say(f"{str(shard).capitalize()}: {tally.tell()}")
    console.say(f"{format_throughput(tally.photos, time.perf_counter() - started)}: {path}")
    if tally.photos and tally.unread == tally.photos:
        raise click.ClickException(
            f"no photo of {shard} could be read; {path} says why, remove it to try again."
        )


def _answer_on_ray(
    classifiers: "list[Classifier]",
    models: tuple[str, ...],
    paths: tuple[str, ...],
    how: "PredictOptions",
    address: str,
    csv_file: Path,
) -> None:
    from transfer.deploy import on_ray
    from transfer.deploy.predict import Tally
    from transfer.deploy.shards import describe_job, describe_model, join_job

    paths = tuple(map(on_ray.absolute, paths))  # workers stand in other folders
    shards = on_ray.divide(paths)
    join_job(describe_job(classifiers, paths, how, len(shards)), csv_file)
    left = {one: photos for one, photos in shards.items() if not one.path(csv_file).exists()}
    if len(left) < len(shards):
        done = len(shards) - len(left)
        console.say(f"Done already: {done:,} of {format_count(len(shards), 'shard')}")
    if not left:
        return
    work = on_ray.Work(tuple(map(on_ray.absolute, models)), how, describe_model(classifiers))
    total, failed = Tally(), []
    with on_ray.connected(address) as num_processors, _counting(len(paths)) as tell:
        console.say(f"{format_count(len(left), 'shard')} on Ray, {num_processors} processors")
        started = time.perf_counter()
        for outcome in on_ray.answer_on_ray(work, left, csv_file, num_processors, tell):
            total += outcome.tally if not outcome.error else Tally()
            failed += [outcome] if outcome.error else []
        seconds = time.perf_counter() - started
    console.say(total.tell())
    console.say(f"{format_throughput(total.photos, seconds)}: {csv_file.stem}-*{csv_file.suffix}")
    if failed:
        raise click.ClickException(
            f"{len(failed):,} of {format_count(len(shards), 'shard')} could not be answered, the "
            f"first: {failed[0].shard}: {failed[0].error} The same command goes on."
        )


@contextlib.contextmanager
def _counting(total: int) -> Iterator[Callable[[int], None]]:
    # Yields a function that is told how many photos are done.
    from rich.progress import Progress

    voice = console.get()
    with Progress(console=voice, transient=True, disable=not voice.is_terminal) as progress:
        task = progress.add_task("photos", total=total)
        yield lambda count: progress.update(task, completed=count)
