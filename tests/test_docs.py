"""Every Python block of the README and the docs runs, in the order of its page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

# What neighbours say of themselves, or of a machine without an accelerator, in ordinary use.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.`",  # in the code of Lightning
    "ignore:The dirpath has changed from",  # Lightning, of every resumed run
    "ignore:'pin_memory' argument is set as true but no accelerator",
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(match.group(1) for match in BLOCK.finditer(page.read_text()))
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})  # noqa: S102
