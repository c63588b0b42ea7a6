"""Seeds, the Hypothesis profiles, and the tests that need a GPU."""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

# A first call that imports or compiles is slow on any machine: a deadline would fail by chance.
settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile(
    "ci",
    max_examples=50,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


# The tensors of tests are small: sharing them between threads costs more than it saves. The cores
# are shared between test processes instead, see the Makefile. The variable is for the programs
# that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    # Loading code that Inductor of torch 2.4 has compiled makes the whole process flush denormals.
    torch.set_flush_denormal(False)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked ``cuda`` on a machine without a CUDA device."""
    if item.get_closest_marker("cuda") is not None and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
