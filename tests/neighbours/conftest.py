"""What tests with other people's code share."""

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState


@pytest.fixture
def accelerator_of():
    """A function that builds an `Accelerator` for the CPU with the given options."""
    # Accelerate keeps one state per process, and refuses another precision after the first.
    AcceleratorState._reset_state(reset_partial_state=True)
    yield lambda **options: Accelerator(cpu=True, **options)
    AcceleratorState._reset_state(reset_partial_state=True)
