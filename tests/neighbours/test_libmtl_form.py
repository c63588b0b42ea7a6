"""The form of LibMTL against another implementation of it, TorchJD's ``UW``."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torchjd.scalarization import UW

from tests.strategies import losses, seeds
from tests.test_forms import KINDS, with_log_vars


@given(values=st.lists(losses, min_size=1, max_size=20), seed=seeds)
def test_libmtl_form_equals_torchjd(values, seed):
    values = torch.tensor(values).requires_grad_()
    s = torch.randn(len(values), generator=torch.Generator().manual_seed(seed))
    peer = UW(len(values))
    peer.load_state_dict({"log_var": s})
    tasks = {f"{i}": KINDS[i % 3] for i in range(len(values))}
    found, expected = with_log_vars(tasks, s, form="libmtl")(values).total, peer(values)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(found, values), torch.autograd.grad(expected, values)
    )
