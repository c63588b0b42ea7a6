"""Rows about settings and logs."""

import json
from pathlib import Path

from tests.examples.bad_inputs.row import TRAIN, Accepted, Refused

TRAIN_ON_COPY = TRAIN.replace("scenes", "copy")
RESUME = "train --out run --resume"
REPORT = "report --run run"
INDEX = "copy/train/00000/frames.json"


def change(file: str, *keys: str | int, value: object) -> None:
    """Put another value under some keys of a JSON file."""
    content = json.loads(Path(file).read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    Path(file).write_text(json.dumps(content))


def damage_line(file: str, number: int) -> None:
    """Overwrite the middle of a line of a log, as a bad block of a disk does."""
    lines = Path(file).read_bytes().splitlines(keepends=True)
    middle = len(lines[number - 1]) // 2
    lines[number - 1] = lines[number - 1][:middle] + b"\0\xff{" + lines[number - 1][middle + 3 :]
    Path(file).write_bytes(b"".join(lines))


def cut(file: str, length: int) -> None:
    """Keep the beginning of a file."""
    Path(file).write_bytes(Path(file).read_bytes()[:length])


def cut_last_line() -> None:
    """Leave the log of a run that was killed while it wrote."""
    cut("run/metrics.jsonl", -20)


def saved_with_byte_order_mark() -> None:
    """Save the settings as some editors do."""
    path = Path("run/config.json")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def report_shows(*words: str) -> None:
    """Check that the report of the run has these words."""
    page = Path("run/report.html").read_text()
    for word in words:
        assert word in page


def no_partial_file() -> None:
    """Check that no half-written file is in the folder of the run."""
    assert list(Path("run").glob("*.partial")) == []


RECORDS: list[Refused | Accepted] = [
    Refused(
        what="a setting of another type in `config.json`",
        spoil=lambda: change("run/config.json", "iterations", value=2.5),
        command=REPORT,
        line="run/config.json: `iterations` should be a whole number; found 2.5; correct the file "
        "by hand",
    ),
    Refused(
        what="true instead of a number in `config.json`",
        spoil=lambda: change("run/config.json", "batch_size", value=True),
        command="predict --run run --image photos --out new",
        line="run/config.json: `batch_size` should be a whole number; found true; ...",
    ),
    Refused(
        what="a setting out of range in `config.json`",
        spoil=lambda: change("run/config.json", "iterations", value=0),
        command=RESUME,
        line="run/config.json: --iterations: should be at least 1; found 0; correct the file by "
        "hand",
    ),
    Refused(
        what="NaN in `config.json`",
        spoil=lambda: change("run/config.json", "learning_rate", value=float("nan")),
        command=RESUME,
        line="run/config.json: `learning_rate` should be a finite number; found NaN; ...",
    ),
    Refused(
        what="one item of another type in a list in `config.json`",
        spoil=lambda: change("run/config.json", "size", value=[16, "32"]),
        command=REPORT,
        line='run/config.json: `size[1]` should be a whole number; found "32"; ...',
    ),
    Refused(
        what="a dilation of 0 in `config.json`",
        spoil=lambda: change("run/config.json", "aspp_rates", value=[0, 12]),
        command=RESUME,
        line="run/config.json: --aspp-rates: should be numbers from 1 up; found (0, 12); ...",
    ),
    Refused(
        what="a setting of a newer version in `config.json`",
        spoil=lambda: change("run/config.json", "colour", value="blue"),
        command=REPORT,
        line="run/config.json: `colour` is not known to this version; ...",
    ),
    Refused(
        what="half of `config.json`",
        spoil=lambda: cut("run/config.json", 100),
        command=RESUME,
        line="run/config.json: is not readable as JSON (...); correct the file by hand",
    ),
    Refused(
        what="a list as `config.json`",
        spoil=lambda: Path("run/config.json").write_text("[1]"),
        command=REPORT,
        line="run/config.json: should be an object; found a list of 1; ...",
    ),
    Refused(
        what="`config.json` nested too deeply",
        spoil=lambda: Path("run/config.json").write_text('{"a":' * 100_000),
        command=REPORT,
        line="run/config.json: is not readable as JSON (...recursion...); ...",
    ),
    Accepted(
        what="`config.json` saved with a byte-order mark",
        spoil=saved_with_byte_order_mark,
        command=REPORT,
        rule="A byte-order mark is passed over.",
        check=lambda: report_shows("<svg"),
    ),
    Refused(
        what="a damaged line in `metrics.jsonl` of a run that is resumed",
        spoil=lambda: damage_line("run/metrics.jsonl", 1),
        command=RESUME,
        line="run/metrics.jsonl, line 1: is not readable as JSON (...); delete this line to go on "
        "without it",
    ),
    Refused(
        what="a line without an iteration in `validation.jsonl` of a run that is resumed",
        spoil=lambda: Path("run/validation.jsonl").write_text("{}\n"),
        command=RESUME,
        line="run/validation.jsonl, line 1: `iteration` is missing; delete this line to go on ...",
    ),
    Accepted(
        what="half a last line in `metrics.jsonl`",
        spoil=cut_last_line,
        command=REPORT,
        rule="A killed run leaves its last line like that, and it is passed over.",
        check=lambda: report_shows("1 of 2 iterations"),
    ),
    Accepted(
        what="a damaged line in `metrics.jsonl` of a run that is reported",
        spoil=lambda: damage_line("run/metrics.jsonl", 1),
        command=REPORT,
        rule="The report leaves it out, with a warning that names it.",
        check=lambda: report_shows("<svg", "validation images"),
    ),
    Accepted(
        what="a figure of another type in `metrics.json` of a run that is reported",
        spoil=lambda: change("run/metrics.json", "semantic_iou", value=[0.5]),
        command=REPORT,
        rule="The report goes without the figures, with a warning that names the file.",
        check=lambda: report_shows("<svg", "Not evaluated yet"),
    ),
    Accepted(
        what="files that a killed run had half written",
        spoil=lambda: Path("run/best.pt.partial").write_bytes(b"half"),
        command=RESUME,
        rule="They are removed when the run goes on.",
        check=no_partial_file,
    ),
    Refused(
        what="more frames in the manifest of a prepared copy than any disk holds",
        spoil=lambda: change("copy/manifest.json", "splits", "train", value=10**15),
        command=TRAIN_ON_COPY,
        line="copy/train/00000: should hold 64 frames by copy/manifest.json; found 4; run "
        "`prepare` again",
    ),
    Refused(
        what="no frames per shard in the manifest of a prepared copy",
        spoil=lambda: change("copy/manifest.json", "per_shard", value=0),
        command=TRAIN_ON_COPY,
        line="copy/manifest.json: `per_shard` should be a whole number from 1 up; found 0; run "
        "`prepare` again, with another --out",
    ),
    Refused(
        what="a manifest of a prepared copy in another format",
        spoil=lambda: change("copy/manifest.json", "format", value=99),
        command=TRAIN_ON_COPY,
        line="copy/manifest.json: `format` should be 1; found 99; run `prepare` again, with "
        "another --out",
    ),
    Refused(
        what="half of the index of a prepared copy",
        spoil=lambda: cut(INDEX, 200),
        command=TRAIN_ON_COPY,
        line=f"{INDEX}: is not readable as JSON (...); run `prepare` again",
    ),
    Refused(
        what="a `factor` of NaN in the index of a prepared copy",
        spoil=lambda: change(INDEX, "frames", 0, "factor", value=float("nan")),
        command=TRAIN_ON_COPY,
        line=f"{INDEX}: `frames[0].factor` should be a finite number above 0; found NaN; run "
        "`prepare` again",
    ),
    Refused(
        what="a wrong number of instances in the index of a prepared copy",
        spoil=lambda: change(INDEX, "frames", 1, "num_centroids", value=7),
        command=TRAIN_ON_COPY,
        line="copy/train/00000/centroids.npy: should be an array of type <f8 and shape (10, 3); "
        "found <f8 and (4, 3); run `prepare` again",
    ),
    Accepted(
        what="a damaged index in a copy that is prepared again",
        spoil=lambda: change(INDEX, "frames", value={}),
        command="prepare --data scenes --out copy --size 16x32",
        rule="That part of the copy is written again.",
        check=lambda: json.loads(Path(INDEX).read_text())["frames"][3],
    ),
]
