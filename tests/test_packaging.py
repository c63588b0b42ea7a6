"""What is built: the same bytes every time, the package alone in the wheel, all in the archive."""

import email
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import uncertainty_mtl

ROOT = Path(__file__).parent.parent
PARTS = ["CITATION.cff", "LICENSE", "Makefile", "README.md", "SECURITY.md", "pyproject.toml"]
FOLDERS = ["benchmarks", "docs", "examples", "tests", "uncertainty_mtl"]
NOT_SOURCE = {"__pycache__", "_build"}

pytestmark = pytest.mark.skipif(
    not (ROOT / "uncertainty_mtl").is_dir(), reason="the tests of a wheel have no sources"
)


def build(tree: Path, out: Path, **environment: str) -> dict[str, Path]:
    """Build ``tree``; return the files by suffix."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    env = {k: v for k, v in os.environ.items() if k != "SOURCE_DATE_EPOCH"} | environment
    subprocess.run(command, cwd=tree, env=env, capture_output=True, check=True)  # noqa: S603
    return {path.suffix: path for path in out.iterdir()}


def copy_of_the_sources(folder: Path) -> Path:
    folder.mkdir()
    for name in PARTS:
        shutil.copyfile(ROOT / name, folder / name)
    for name in FOLDERS:
        ignore = shutil.ignore_patterns(*NOT_SOURCE)
        # `copyfile`: times and permissions are not those of the original.
        shutil.copytree(ROOT / name, folder / name, ignore=ignore, copy_function=shutil.copyfile)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    tree = copy_of_the_sources(folder / "tree")
    return build(tree, folder / "dist")


def test_another_copy_gives_the_same_bytes(built, tmp_path):
    again = build(copy_of_the_sources(tmp_path / "elsewhere"), tmp_path / "dist")
    for suffix, path in built.items():
        assert again[suffix].read_bytes() == path.read_bytes()


def test_the_archive_gives_the_same_wheel(built, tmp_path):
    with tarfile.open(built[".gz"]) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    wheel = build(tree, tmp_path / "dist")[".whl"]
    assert wheel.read_bytes() == built[".whl"].read_bytes()


def test_the_archive_holds_every_source(built):
    with tarfile.open(built[".gz"]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    expected = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not NOT_SOURCE & set(path.relative_to(ROOT).parts)
    }
    assert expected | set(PARTS) <= names
    assert names - expected - set(PARTS) <= {".gitignore", "PKG-INFO"}


def test_the_wheel_holds_the_typed_package_and_nothing_else(built):
    with zipfile.ZipFile(built[".whl"]) as wheel:
        names = wheel.namelist()
    version = uncertainty_mtl.__version__
    assert {name.split("/")[0] for name in names} == {
        "uncertainty_mtl",
        f"uncertainty_mtl-{version}.dist-info",
    }
    assert "uncertainty_mtl/py.typed" in names


def test_the_metadata_takes_the_packages_version_and_requires_torch_alone(built):
    name = f"uncertainty_mtl-{uncertainty_mtl.__version__}.dist-info/METADATA"
    with zipfile.ZipFile(built[".whl"]) as wheel:
        metadata = email.message_from_bytes(wheel.read(name))
    assert metadata["Version"] == uncertainty_mtl.__version__
    required = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    assert required == ["torch>=2.4"]
