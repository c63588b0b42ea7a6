"""The README and the pages of the documentation, and the Python code that they show."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def code_of(page: Path) -> str:
    """Return all Python blocks of a page, in their order."""
    return "\n".join(match.group(1) for match in BLOCK.finditer(page.read_text()))


def pages_with_code() -> list[Path]:
    """Return the pages that show Python code."""
    pages = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in pages if "_build" not in page.parts and code_of(page)]


def run_on_two_processes(code: str, folder: Path) -> None:
    """Run a script under ``torchrun`` on two processes, in a folder that it may write to."""
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
