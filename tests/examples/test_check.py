"""`check` lists every problem of a dataset in one go, and none of a sound one."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from examples.cityscapes.__main__ import main
from examples.cityscapes.data.check import check
from examples.cityscapes.data.prepare import prepare
from examples.cityscapes.data.prepared import is_prepared
from examples.rendered_scenes import synthesize
from tests.examples.array_tree import write_arrays
from tests.examples.tiny_tree import scene, write_frame, write_tree

CAMERA = {"extrinsic": {"baseline": 0.2}, "intrinsic": {"fx": 40.0, "u0": 16.0}}


@pytest.fixture
def tree(tmp_path):
    """Six training and two validation images in a town, and two training images in a village."""
    root = write_tree(tmp_path / "scenes")
    for index in range(2):
        pixels = scene((16, 32), seed=index)
        write_frame(root, "train", f"village_00000{index}_000000", *pixels, disparity=False)
    for path in root.rglob("disparity/*/town/*.png"):
        camera = root / path.relative_to(root).as_posix().replace("disparity", "camera")
        camera = camera.with_suffix(".json")
        camera.parent.mkdir(parents=True, exist_ok=True)
        camera.write_text(json.dumps(CAMERA))
    return root


def status(*arguments):
    """Run a command as the shell would see it."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


def problems_of(root, **options):
    """Return the lines of the report, without their indentation."""
    _, problems = check(root, **options)
    return [line.strip() for line in problems.report(100)]


def path_of(root, folder, index, ending, split="train"):
    return root / folder / split / "town" / f"town_00000{index}_000000_{ending}"


def image_of(root, index):
    return path_of(root, "leftImg8bit", index, "leftImg8bit.png")


def labels_of(root, index, kind):
    return path_of(root, "gtFine", index, f"gtFine_{kind}.png")


def disparity_of(root, index):
    return path_of(root, "disparity", index, "disparity.png")


def camera_of(root, index):
    return path_of(root, "camera", index, "camera.json")


def write(path, pixels):
    Image.fromarray(np.asarray(pixels)).save(path)


def pixels_of(path):
    with Image.open(path) as image:
        return np.array(image)


def with_pixel(path, value):
    """Give the first pixel of a file another value."""
    pixels = pixels_of(path)
    pixels[0, 0] = value
    write(path, pixels)


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_a_sound_dataset_has_no_problems(tree, capsys):
    assert status("check", "--data", tree) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train: 8 images (8 label ids, 8 instance ids, 6 disparity, 6 camera)",
        "val: 2 images (2 label ids, 2 instance ids, 2 disparity, 2 camera)",
        f"{tree}: no problems",
    ]


def test_rendered_scenes_and_their_prepared_copy_have_no_problems(tmp_path):
    synthesize(tmp_path / "scenes", train=4, val=2, size=(64, 128), seed=0)
    assert problems_of(tmp_path / "scenes") == []
    prepare(tmp_path / "scenes", tmp_path / "copy", (32, 64), workers=1)
    lines, problems = check(tmp_path / "copy")
    assert lines == ["train: 4 images of 32x64 in 1 parts", "val: 2 images of 32x64 in 1 parts"]
    assert len(problems) == 0


SPOILS = {
    "cut image": (lambda t: cut(image_of(t, 0)), "images that cannot be used", "_leftImg8bit"),
    "16 bits": (
        lambda t: write(image_of(t, 0), np.zeros((16, 32), np.uint16)),
        "images that cannot be used",
        "found a PNG of 16-bit gray",
    ),
    "another shape": (
        lambda t: write_frame(t, "train", "town_000000_000000", *scene((32, 32), 0)),
        "images with another aspect ratio than most",
        "is 32x32; most are like 16x32",
    ),
    "no labels": (
        lambda t: [labels_of(t, 0, kind).unlink() for kind in ("labelIds", "instanceIds")],
        "images without labels",
        "has no labels",
    ),
    "no instances": (
        lambda t: labels_of(t, 0, "instanceIds").unlink(),
        "images without instance ids (--tasks semantic,depth trains without)",
        "town_000000_000000_leftImg8bit.png",
    ),
    "no disparity": (
        lambda t: [disparity_of(t, 0).unlink(), camera_of(t, 0).unlink()],
        "missing disparity files of cities that have some",
        "town_000000_000000_leftImg8bit.png",
    ),
    "no camera": (
        lambda t: camera_of(t, 0).unlink(),
        "missing camera files of cities that have some",
        "town_000000_000000_leftImg8bit.png",
    ),
    "small labels": (
        lambda t: write(labels_of(t, 0, "labelIds"), np.zeros((8, 16), np.uint8)),
        "label files that cannot be used",
        "is 8x16 (height x width), but its image is 16x32",
    ),
    "unknown label": (
        lambda t: with_pixel(labels_of(t, 0, "labelIds"), 40),
        "label files that cannot be used",
        "found 40",
    ),
    "unknown instance": (
        lambda t: with_pixel(labels_of(t, 0, "instanceIds"), 60000),
        "label files that cannot be used",
        "found 60000",
    ),
    "contradiction": (
        lambda t: with_pixel(labels_of(t, 0, "labelIds"), 4),
        "label files that contradict each other",
        "the label ids of 1 pixels contradict",
    ),
    "cut disparity": (
        lambda t: cut(disparity_of(t, 0)),
        "disparity files that cannot be used",
        "not a readable image",
    ),
    "disparity of 8 bits": (
        lambda t: write(disparity_of(t, 0), np.zeros((16, 32), np.uint8)),
        "disparity files that cannot be used",
        "found a PNG of 8-bit gray",
    ),
    "camera without a key": (
        lambda t: camera_of(t, 0).write_text('{"extrinsic": {"baseline": 0.2}}'),
        "camera files that cannot be used",
        "KeyError('intrinsic')",
    ),
    "camera of another size": (
        lambda t: camera_of(t, 0).write_text(json.dumps(CAMERA).replace("16.0", "1024.0")),
        "camera files that cannot be used",
        "as in images about 2048 pixels wide",
    ),
    "no validation": (
        lambda t: [shutil.rmtree(path / "val") for path in t.iterdir()],
        "splits without images",
        "leftImg8bit/val: holds no image",
    ),
    "broken link": (
        lambda t: (t / "leftImg8bit/train/hamlet").symlink_to("nowhere"),
        "folders that cannot be read",
        "is a link to a folder that does not exist",
    ),
    "no depth": (
        lambda t: [shutil.rmtree(t / folder) for folder in ("disparity", "camera")],
        "tasks without any label in the training images",
        "depth",
    ),
}


@pytest.mark.parametrize("name", SPOILS)
def test_each_problem_is_listed_under_its_kind_and_is_the_only_one(tree, capsys, name):
    spoil, kind, text = SPOILS[name]
    spoil(tree)
    title, line = problems_of(tree)
    assert title == f"{kind} (1):"
    assert text in line
    assert status("check", "--data", tree) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f"{tree}: 1 problems"
    assert printed.err == ""


def test_many_problems_are_listed_together_and_shortened_by_kind(tree, capsys):
    for index in range(4):
        cut(disparity_of(tree, index))
    image_of(tree, 5).unlink()  # which leaves the four files that belong to it
    (tree / "leftImg8bit/val/town").rename(tree / "leftImg8bit/val/city")
    assert status("check", "--data", tree, "--show", 2) == 1
    lines = capsys.readouterr().out.splitlines()
    titles = {line for line in lines if line.endswith("):")}
    assert titles == {
        "images without labels (2):",
        # Two validation images have lost four files each.
        "files that belong to no image (12):",
        "disparity files that cannot be used (4):",
    }
    assert lines[lines.index("disparity files that cannot be used (4):") + 3] == "  ... and 2 more"
    assert lines[-1] == f"{tree}: 18 problems"


def test_coarse_labels_are_checked_where_they_are_asked_for(tree):
    (tree / "gtCoarse").mkdir()
    (tree / "gtFine/train").rename(tree / "gtCoarse/train")
    for path in (tree / "gtCoarse").rglob("*.png"):
        path.rename(path.with_name(path.name.replace("gtFine", "gtCoarse")))
    titles = [line for line in problems_of(tree) if line.endswith("):")]
    assert titles[0] == "images without labels (8):"
    (title, line) = problems_of(tree, labels="gtCoarse")
    assert title == "splits without images (1):"
    assert "train_extra" in line


@pytest.fixture
def copy(tree, tmp_path):
    prepare(tree, tmp_path / "copy", (16, 32), workers=1, per_shard=2)
    return tmp_path / "copy"


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def test_every_problem_of_a_prepared_copy_is_listed(copy, tree, capsys):
    flip_bit(copy / "train/00000/image.npy")
    shutil.rmtree(copy / "train/00001")
    (copy / "train/00002/semantic.npy").write_bytes(b"short")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"]["train"] = 10**12
    (copy / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    with_pixel(path_of(tree, "leftImg8bit", 1, "leftImg8bit.png", "val"), (1, 2, 3))
    lines = problems_of(copy)
    expected = {
        "settings of the copy that cannot be used (1):": ["not completely prepared"],
        "frames that have changed since they were written (1):": ["train/00000: frame 1"],
        "missing parts of the copy (2):": ["train/00001;", "train/00004, and all that"],
        "parts of the copy that cannot be used (1):": ["train/00002/semantic.npy: should have"],
        "source files that have changed since they were copied (1):": ["town_000001"],
    }
    for title, texts in expected.items():
        start = lines.index(title) + 1
        for text, line in zip(texts, lines[start : start + len(texts)], strict=True):
            assert text in line
    assert len(lines) == 5 + 6
    assert status("check", "--data", copy) == 1
    assert capsys.readouterr().out.endswith(f"{copy}: 6 problems\n")


def test_what_cannot_be_checked_at_all_is_refused(tmp_path, capsys):
    assert status("check", "--data", tmp_path / "none") == 2
    assert "none: no such folder" in capsys.readouterr().err


@pytest.fixture
def arrays(tree, tmp_path):
    """The scenes of the town as arrays, without instances."""
    for path in list(tree.rglob("village*.png")):
        path.unlink()
    return write_arrays(tree, tmp_path / "arrays")


def test_sound_arrays_have_no_problems(arrays, capsys):
    assert status("check", "--data", arrays) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train: 6 images (6 with label_7, 6 with depth)",
        "val: 2 images (2 with label_7, 2 with depth)",
        f"{arrays}: no problems",
    ]


def test_a_manifest_makes_no_prepared_copy_of_original_data(tree, arrays, tmp_path):
    prepare(tree, tmp_path / "copy", (16, 32), workers=1)
    folders = (tree, arrays, tmp_path / "copy")
    lines = [check(folder)[0] for folder in folders]
    for folder in folders[:2]:
        shutil.copy(tmp_path / "copy/manifest.json", folder)
    assert [is_prepared(folder) for folder in folders] == [False, False, True]
    assert [check(folder)[0] for folder in folders] == lines


def test_all_problems_of_arrays_are_listed_in_one_go(arrays, capsys):
    train = arrays / "train"
    cut(train / "image/0.npy")
    np.save(train / "image/1.npy", np.full((16, 32, 3), 200.0))
    for kind, shape in {"image": (8, 16, 3), "label_7": (8, 16), "depth": (8, 16, 1)}.items():
        np.save(train / kind / "2.npy", np.ones(shape))
    (train / "depth/3.npy").unlink()
    (train / "label_7/3.npy").unlink()
    (train / "image/4.npy").unlink()
    np.save(train / "label_7/5.npy", np.full((16, 32), 7))
    np.save(arrays / "val/depth/0.npy", np.full((16, 32, 1), np.inf))
    assert status("check", "--data", arrays) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "train: 5 images (3 with label_7, 4 with depth)",
        "val: 2 images (2 with label_7, 1 with depth)",
        "files that belong to no image (2):",
        f"  {train / 'label_7/4.npy'}",
        f"  {train / 'depth/4.npy'}",
        "images that cannot be used (2):",
        lines[6],
        f"  {train / 'image/1.npy'}: should hold floating-point colours from 0 to 1; found "
        "float64 from 200 to 200",
        "images without classes (1):",
        f"  {train / 'image/3.npy'}: has no {train / 'label_7/3.npy'}",
        "images without depth (1):",
        f"  {train / 'image/3.npy'}: has no {train / 'depth/3.npy'}",
        "label files that cannot be used (1):",
        f"  {train / 'label_7/5.npy'}: should hold whole numbers from 0 to 6, or -1 for no class; "
        "found 7",
        "disparity files that cannot be used (1):",
        f"  {arrays / 'val/depth/0.npy'}: should hold finite inverse depths; found float32 from "
        "inf to inf",
        "images of another size than most (1):",
        f"  {train / 'image/2.npy'}: is 8x16; most are 16x32",
        f"{arrays}: 9 problems",
    ]
    assert lines[6].startswith(f"  {train / 'image/0.npy'}: not a readable array (")


def test_arrays_without_a_kind_or_a_split_say_so(arrays):
    shutil.rmtree(arrays / "train/depth")
    shutil.rmtree(arrays / "val/image")
    lines = problems_of(arrays)
    assert lines[:2] == ["tasks without any label in the training images (1):", "depth"]
    assert f"{arrays / 'val/image'}: holds no image N.npy" in lines
