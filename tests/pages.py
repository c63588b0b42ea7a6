"""The README and the pages of the documentation, and the Python code that they show."""

import contextlib
import io
import math
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```(?:\n+```text\n(?P<output>.*?)^```)?", re.MULTILINE | re.DOTALL
)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def code_of(page: Path) -> str:
    """Return all Python blocks of a page, in their order."""
    return "\n".join(match["code"] for match in BLOCK.finditer(page.read_text()))


def output_shown_by(page: Path) -> str:
    """Return what the Python blocks of a page print, according to the page."""
    return "\n".join(match["output"] or "" for match in BLOCK.finditer(page.read_text()))


def pages_with_code() -> list[Path]:
    """Return the pages that show Python code."""
    pages = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in pages if "_build" not in page.parts and code_of(page)]


def run_page(page: Path) -> None:
    """Run the blocks of a page one after another; each prints the ``text`` block that follows it.

    A block without a ``text`` block after it may print what it likes.
    """
    text, names = page.read_text(), {"__name__": "__main__"}
    for match in BLOCK.finditer(text):
        # The line numbers of an error are those of the page.
        above = "\n" * text.count("\n", 0, match.start("code"))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(above + match["code"], str(page), "exec"), names)  # noqa: S102
        if match["output"] is not None:
            check_output(printed.getvalue(), match["output"])


def check_output(printed: str, shown: str) -> None:
    """Fail unless words and layout are equal, and numbers nearly so.

    Training ends with slightly different numbers on another processor or version of torch. A
    number may differ by 2%, or by 1 in its last shown digit.
    """
    assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", shown).split(), printed
    for found, expected in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        last_digit = 10.0 ** int(Decimal(expected).as_tuple().exponent)
        assert math.isclose(
            float(found), float(expected), rel_tol=0.02, abs_tol=1.001 * last_digit
        ), f"{found} was printed, {expected} is shown, in:\n{printed}"


def run_on_two_processes(code: str, folder: Path) -> str:
    """Run a script under ``torchrun`` on two processes, in a folder that it may write to.

    Returns:
        What the processes print.
    """
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
    return result.stdout
