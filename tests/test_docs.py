"""Every Python block of the README and the docs runs, in the order of its page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed.fsdp
from transformers.utils import is_torch_available

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

# What neighbours say of themselves, or of a machine without an accelerator, in ordinary use.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.`",  # in the code of Lightning
    "ignore:The dirpath has changed from",  # Lightning, of every resumed run
    "ignore:You are using `torch.load` with `weights_only=False`",  # Lightning, on torch < 2.6
    "ignore:'pin_memory' argument is set as true but no accelerator",
)


# Its code is a script for `torchrun`.
ON_TWO_PROCESSES = {"train_on_several_processes"}


def code_of(page: Path) -> str:
    return "\n".join(match.group(1) for match in BLOCK.finditer(page.read_text()))


def run_on_two_processes(code: str, folder: Path) -> None:
    (folder / "train.py").write_text(code)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    result = subprocess.run(  # noqa: S603
        [*torchrun, "--nproc-per-node", "2", "train.py"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = code_of(page)
    if page.stem == "use_with_hugging_face_trainer" and not is_torch_available():
        pytest.skip("the Trainer needs a newer torch")
    if page.stem in ON_TWO_PROCESSES:
        if not hasattr(torch.distributed.fsdp, "fully_shard"):
            pytest.skip("FSDP2 is public since torch 2.6")
        run_on_two_processes(code, tmp_path)
        return
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})  # noqa: S102
