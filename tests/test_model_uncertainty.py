"""Monte Carlo dropout: what it does to the model, and what its two parts mean."""

import math

import pytest
import torch
from torch import nn

from uncertainty_mtl import (
    GaussianHead,
    HeteroscedasticGaussianHead,
    LaplaceHead,
    ScaledSoftmaxHead,
    UncertaintyWeightedLoss,
    mc_dropout,
)


class Net(nn.Module):
    """Three tasks behind batch norm and dropout; the second half of `depth` is its log-variance."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Dropout(0.5))
        self.outputs = nn.Linear(16, 8)

    def forward(self, x):
        """Return a dict of predictions."""
        y = self.outputs(self.trunk(x))
        return {"depth": y[:, :2], "noisy": (y[:, 2:4], y[:, 4:6]), "semantic": y[:, 5:]}


HEADS = {
    "depth": LaplaceHead(init_sigma=3.0),
    "noisy": HeteroscedasticGaussianHead(),
    "semantic": ScaledSoftmaxHead(),
}


@pytest.mark.parametrize("at_once", [None, 1, 7])
@pytest.mark.parametrize("wrap", [dict, UncertaintyWeightedLoss], ids=["dict", "loss"])
def test_each_task_gets_its_kind_of_uncertainty(at_once, wrap):
    model, x = Net(), torch.randn(5, 3)
    found = mc_dropout(model, x, samples=50, heads=wrap(HEADS), samples_at_once=at_once)
    assert found["depth"].mean.shape == (5, 2)
    assert (found["depth"].epistemic > 0).all()
    torch.testing.assert_close(found["depth"].aleatoric, torch.full((5, 2), 9.0))
    assert (found["noisy"].aleatoric.std() > 0).all()
    semantic = found["semantic"]
    torch.testing.assert_close(semantic.probability.sum(1), torch.ones(5))
    assert (semantic.mutual_information >= -1e-6).all()
    assert (semantic.entropy <= math.log(3) + 1e-6).all()
    assert (semantic.mutual_information <= semantic.entropy).all()


def test_the_parts_are_those_of_a_plain_loop():
    model, x = Net(), torch.randn(4, 3)
    found = mc_dropout(model, x, samples=4000, heads=HEADS)
    model.eval()
    model.trunk[2].train()
    with torch.no_grad():
        outputs = [model(x) for _ in range(4000)]
    depth = torch.stack([y["depth"] for y in outputs])
    torch.testing.assert_close(found["depth"].mean, depth.mean(0), atol=0.05, rtol=0.05)
    torch.testing.assert_close(found["depth"].epistemic, depth.var(0), atol=0.02, rtol=0.15)
    p = torch.stack([y["semantic"] for y in outputs]).softmax(-1)
    entropy = -(p.mean(0) * p.mean(0).log()).sum(-1)
    expected = -(p * p.log()).sum(-1).mean(0)
    semantic = found["semantic"]
    torch.testing.assert_close(semantic.probability, p.mean(0), atol=0.02, rtol=0.05)
    torch.testing.assert_close(semantic.entropy, entropy, atol=0.02, rtol=0.05)
    torch.testing.assert_close(semantic.mutual_information, entropy - expected, atol=0.02, rtol=0.1)


def test_only_dropout_is_stochastic_and_modes_come_back():
    model = Net().train()
    model.outputs.eval()
    modes = [module.training for module in model.modules()]
    mean = model.trunk[1].running_mean.clone()
    mc_dropout(model, torch.randn(5, 3), samples=3)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model.trunk[1].running_mean, mean)
    with pytest.raises(RuntimeError):
        mc_dropout(model, torch.randn(5, 4), samples=3)
    assert [module.training for module in model.modules()] == modes


def test_a_single_output_and_other_kinds_of_input():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def forward(self, a, b):
            return self.dropout(a + b)

    a, b = torch.ones(3, 2), torch.ones(3, 2)
    for inputs in ((a, b), {"a": a, "b": b}):
        found = mc_dropout(Sum(), inputs, samples=2000, heads=GaussianHead(init_sigma=2.0))
        # 2 or 0 doubled: mean 2, variance 4.
        torch.testing.assert_close(found.mean, 2 * a, atol=0.3, rtol=0)
        torch.testing.assert_close(found.epistemic, 4 * a, atol=0.3, rtol=0)
        torch.testing.assert_close(found.aleatoric, 4 * a)
    plain = mc_dropout(Sum(), (a, b), samples=5)
    assert not plain.aleatoric.any()


@pytest.mark.slow
def test_epistemic_falls_with_data_and_rises_away_from_it_and_aleatoric_does_not():
    def fit(n: int):
        torch.manual_seed(0)
        x = torch.randn(n, 1)
        y = torch.sin(2 * x) + 0.3 * torch.randn(n, 1)
        model = nn.Sequential(
            nn.Linear(1, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 64), nn.ReLU(),
            nn.Dropout(0.1), nn.Linear(64, 1),
        )  # fmt: skip
        loss_fn = UncertaintyWeightedLoss({"y": "gaussian"})
        # The prior's weight falls with the data, as in the derivation of dropout as inference.
        groups = [
            {"params": model.parameters(), "weight_decay": 2.0 / n},
            *loss_fn.param_groups(),
        ]
        optimizer = torch.optim.Adam(groups, lr=1e-2)
        for _ in range(1500):
            rows = torch.randint(n, (64,))
            optimizer.zero_grad()
            loss_fn({"y": model(x[rows])}, {"y": y[rows]}).total.backward()
            optimizer.step()
        near, far = torch.linspace(-1.5, 1.5, 50)[:, None], torch.linspace(6, 8, 50)[:, None]
        parts = [mc_dropout(model, z, 200, heads=loss_fn["y"]) for z in (near, far)]
        return [part.epistemic.mean().item() for part in parts], loss_fn["y"].sigma.item()

    (near_few, far_few), sigma_few = fit(40)
    (near_many, far_many), sigma_many = fit(4000)
    assert near_many < 0.7 * near_few, "epistemic uncertainty falls with data"
    assert far_few > 3 * near_few, "and rises away from it"
    assert far_many > 3 * near_many
    assert sigma_many == pytest.approx(0.3, rel=0.3), "the noise is the data's"
    assert sigma_many > 0.7 * sigma_few, "aleatoric uncertainty does not fall with data"


def test_a_model_without_dropout_is_refused():
    with pytest.raises(ValueError, match=r"dropout layers.*Found none"):
        mc_dropout(nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.0)), torch.zeros(1, 1))


def test_heads_must_fit_the_output():
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5))
    with pytest.raises(ValueError, match=r"a single head.*Found dict"):
        mc_dropout(model, torch.zeros(1, 1), heads={"a": GaussianHead()})
    with pytest.raises(ValueError, match="`samples` should be"):
        mc_dropout(model, torch.zeros(1, 1), samples=0)


def test_outputs_of_a_group_have_uncertainties_of_their_own():
    class Grouped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2))

        def forward(self, x):
            y = self.net(x)
            return {"g": {"y": y[:, :1]}, "z": y[:, 1:]}

    loss_fn = UncertaintyWeightedLoss(
        {"g": UncertaintyWeightedLoss({"y": GaussianHead(init_sigma=2.0)}), "z": "laplace"}
    )
    found = mc_dropout(Grouped(), torch.ones(4, 3), samples=5, heads=loss_fn)
    torch.testing.assert_close(found["g"]["y"].aleatoric, torch.full((4, 1), 4.0))
    assert found["z"].mean.shape == (4, 1)
    assert mc_dropout(Grouped(), torch.ones(4, 3), samples=5)["g"]["y"].mean.shape == (4, 1)
