"""Two tasks in different units, each weighed by its own noise, in 40 lines and with no data.

Run with ``python examples/minimal.py``: the sigma of ``price`` ends near its noise, 2.
"""

import torch
from torch import nn

from uncertainty_mtl import GaussianHead, ScaledSoftmaxHead, UncertaintyWeightedLoss

torch.manual_seed(0)
x = torch.randn(1024, 4)
price = 5 * x[:, 0] + 2 * torch.randn(1024)
label = (x[:, 1] + 0.5 * torch.randn(1024) > 0).long()


class TwoTaskNet(nn.Module):
    """A shared trunk and one output layer per task."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 32), nn.ReLU())
        self.price, self.label = nn.Linear(32, 1), nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the predictions by task."""
        features = self.trunk(x)
        return {"price": self.price(features).squeeze(1), "label": self.label(features)}


model = TwoTaskNet()
loss_fn = UncertaintyWeightedLoss({"price": GaussianHead(), "label": ScaledSoftmaxHead()})
optimizer = torch.optim.Adam([{"params": model.parameters()}, *loss_fn.param_groups()], lr=0.03)

for step in range(1001):
    losses = loss_fn(model(x), {"price": price, "label": label})
    optimizer.zero_grad()
    losses.total.backward()
    optimizer.step()
    if step % 200 == 0:
        print(step, {task: round(sigma.item(), 2) for task, sigma in loss_fn.sigmas().items()})
