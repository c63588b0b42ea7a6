"""What the street-scene example refuses and by which line, and what it accepts and by which rule.

A table: to cover another input, add a row. `tests/examples/test_bad_inputs.py` tries every row in
a folder of its own, in which lie

    scenes/    a dataset in the official layout: 4 training and 2 validation images, 16x32
    copy/      what `prepare` made of it
    run/       a finished run on it, of 2 iterations, with its `metrics.json`
    photos/    three images without labels: a.png, b.png, c.png
"""

from tests.examples.bad_inputs.arrays import ARRAYS
from tests.examples.bad_inputs.commands import COMMANDS
from tests.examples.bad_inputs.full_disks import FULL_DISKS
from tests.examples.bad_inputs.images import IMAGES
from tests.examples.bad_inputs.records import RECORDS
from tests.examples.bad_inputs.runs import RUNS
from tests.examples.bad_inputs.trees import TREES

TABLE = {
    "Folders of a dataset": TREES,
    "Images and labels": IMAGES,
    "Arrays of other papers": ARRAYS,
    "Runs, checkpoints and prepared copies": RUNS,
    "Settings and logs": RECORDS,
    "Commands": COMMANDS,
    "Full disks": FULL_DISKS,
}
"""Rows by the heading that they have in the documentation."""
