"""What every command does, once its arguments are read.

They import what they need when they run: an argument error or --help need not wait for torch,
scikit-learn and matplotlib.
"""

import sys
from pathlib import Path

from examples.cityscapes.config import load_config, new_config, resume_config
from examples.common.errors import InputError


def synthesize(out: Path, **options: object) -> None:
    """Render street scenes."""
    from examples.rendered_scenes import synthesize

    synthesize(out, **options)


def prepare(data: Path, out: Path, size: tuple[int, int], workers: int | None) -> None:
    """Write a resized copy that trains without decoding images."""
    from examples.cityscapes.data.prepare import prepare

    for split, count in prepare(data, out, size, workers=workers).items():
        print(f"{split}: {count} images of {size[0]}x{size[1]} in {out / split}")


def train(resume: bool = False, **given: object) -> None:
    """Train a network."""
    from examples.cityscapes.training.log import NonFiniteLossError
    from examples.cityscapes.training.train import train

    if "out" not in given:
        raise InputError("--out: needed, the folder of the run")
    if not resume and "data" not in given:
        raise InputError("--data: needed, unless a run is resumed")
    config = resume_config(given["out"], given) if resume else new_config(given)
    try:
        train(config, resume=resume)
    except NonFiniteLossError as error:
        sys.exit(complain(error, status=1))


def evaluate(
    run: Path, data: Path, device: str, official: bool, checkpoint: str, **grouping: object
) -> None:
    """Measure a run on the validation split."""
    from examples.cityscapes.evaluation.evaluate import evaluate
    from examples.cityscapes.report.tables import full_summary
    from examples.cityscapes.scene.instances import Grouping

    chosen, config = Grouping(**grouping), load_config(run)
    metrics = evaluate(
        config, data, device, official=official, grouping=chosen, checkpoint=checkpoint
    )
    print(full_summary(config, metrics))


def predict(
    run: Path,
    image: Path,
    out: Path,
    uncertainty: bool,
    samples: int,
    device: str,
    checkpoint: str,
    batch_size: int,
    arrays: bool,
    **grouping: object,
) -> None:
    """Predict one image, or all in a folder."""
    from examples.cityscapes.commands.predict import Options, predict
    from examples.cityscapes.scene.instances import Grouping

    options = Options(
        device=device,
        checkpoint=checkpoint,
        batch_size=batch_size,
        samples=samples if uncertainty else None,
        arrays=arrays,
        grouping=Grouping(**grouping),
    )
    written = predict(load_config(run), image, out, options)
    if image.is_dir():
        print(f"{sum(1 for _ in written)} images predicted in {out}")
        return
    for paths in written:
        print(*paths, sep="\n")


def report(run: Path, data: Path | None, checkpoint: str) -> None:
    """Write the page of a run."""
    from examples.cityscapes.report.page import write_report

    print(write_report(load_config(run), data, checkpoint))


def demo(**options: object) -> None:
    """Render, train, evaluate and report."""
    from examples.cityscapes.commands.demo import demo

    print(demo(**options))


def complain(message: object, status: int) -> int:
    """Print the one line of a refused command; returns the exit status."""
    line = " ".join(str(message).split())
    print(f"error: {line}", file=sys.stderr)
    return status
