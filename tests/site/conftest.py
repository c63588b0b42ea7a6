"""The site, built once for all files of this folder, and a browser that shows it."""

import contextlib
import fcntl
import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.site.browser import browser

ROOT = Path(__file__).parents[2]
ADDRESSES = {
    "SITE_URL": "https://docs.example/uncertainty",
    "REPOSITORY_URL": "https://github.com/example/uncertainty_mtl",
}
"""Where the site says it is published, and where its sources are: neither is asked."""


def run_sphinx(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Sphinx in a process of its own, and return how it ended and what it printed."""
    return subprocess.run(  # noqa: S603
        [sys.executable, "-m", "sphinx", "-q", *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@contextlib.contextmanager
def one_process_at_a_time(path: Path) -> Iterator[None]:
    """Hold a lock on a file."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # the workers of one run share the site
        folder = folder.parent
    out = folder / "site" / urlsplit(ADDRESSES["SITE_URL"]).path.strip("/")
    with one_process_at_a_time(folder / "site.lock"):
        if not out.exists():
            options = ["-W", "-n", "--keep-going", "-d", folder / "doctrees"]
            done = run_sphinx(*options, ROOT / "docs", folder / "building", **ADDRESSES)
            assert done.returncode == 0, done.stderr
            out.parent.mkdir()
            (folder / "building").rename(out)
    return out


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(chromium):
    chromium.requests.clear()
    chromium.errors.clear()
    return chromium


@pytest.fixture(scope="session")
def address(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    # Below a path, as it is published: the page for missing addresses has links from the root.
    handler = functools.partial(Quiet, directory=site.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/{site.name}"
        server.shutdown()
        thread.join()
