"""RS-Net: a 3-D U-Net, and a block on it for each task."""

import torch
from torch import Tensor, nn

from examples.brain_tumour.brain_config import MODALITIES
from examples.brain_tumour.volumes import LABELS

STEPS = 4
"""Resolutions of the U-Net."""

GUIDE = {"flair": "t2", "t2": "flair", "t1": "t1ce", "t1ce": "t1"}
"""The input volume that the regression block sees too: the one most like the missing one."""


class RSNet(nn.Module):
    """Regression-segmentation network of Mehta and Arbel (SASHIMI 2018).

    Resolution n = 1..4 has `k * 2**n` channels. The widths of the U-Net, its two convolutions per
    resolution, max pooling and ReLU are a reading of the text, which does not spell them out.

    Args:
        missing: The modality to synthesise.
        base_width: k.
        dropout: Probability that an activation is dropped.

    Shape:
        - input: (B, 3, D, H, W), each of D, H and W a multiple of 8.
        - output: by task name; `synthesis` (B, 1, D, H, W), `segmentation` (B, 4, D, H, W) logits.
    """

    def __init__(self, missing: str, base_width: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        inputs = [modality for modality in MODALITIES if modality != missing]
        self.guide = inputs.index(GUIDE[missing])
        self.unet = UNet(len(inputs), base_width, dropout)
        features = self.unet.out_channels
        self.synthesis = task_block(features + 1, base_width, 1, dropout)
        self.segmentation = task_block(features, base_width, len(LABELS), dropout)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the synthesised volume and the logits of the classes."""
        features = self.unet(inputs)  # (B, 2k, D, H, W)
        guide = inputs[:, self.guide, None]
        return {
            "synthesis": self.synthesis(torch.cat([features, guide], dim=1)),
            "segmentation": self.segmentation(features),
        }


class UNet(nn.Module):
    """Each resolution on the way up is joined with the same resolution on the way down."""

    def __init__(self, in_channels: int, base_width: int, dropout: float) -> None:
        super().__init__()
        widths = [base_width * 2**n for n in range(1, STEPS + 1)]
        self.down = nn.ModuleList(
            two_convolutions(before, width, dropout)
            for before, width in zip([in_channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool3d(2)
        self.up, self.join = nn.ModuleList(), nn.ModuleList()
        for below, width in zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True):
            # Padding 2 and output padding 1 make it exactly twice as large.
            transposed = nn.ConvTranspose3d(below, width, 5, stride=2, padding=2, output_padding=1)
            self.up.append(nn.Sequential(transposed, *after_convolution(width, dropout)))
            self.join.append(two_convolutions(2 * width, width, dropout))
        self.out_channels = widths[0]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return features at the resolution of the input."""
        features, skipped = inputs, []
        for level, convolve in enumerate(self.down):
            features = convolve(self.pool(features) if level else features)
            skipped.append(features)
        skipped.pop()  # the lowest resolution is not skipped: it goes up
        for enlarge, convolve in zip(self.up, self.join, strict=True):
            features = convolve(torch.cat([enlarge(features), skipped.pop()], dim=1))
        return features


def task_block(in_channels: int, base_width: int, outputs: int, dropout: float) -> nn.Sequential:
    """Return four convolutions: 3^3 to 4k, 1^3 to 2k, 1^3 to k, 1^3 to the output."""
    return nn.Sequential(
        convolution(in_channels, 4 * base_width, 3, dropout),
        convolution(4 * base_width, 2 * base_width, 1, dropout),
        convolution(2 * base_width, base_width, 1, dropout),
        nn.Conv3d(base_width, outputs, kernel_size=1),
    )


def two_convolutions(in_channels: int, channels: int, dropout: float) -> nn.Sequential:
    """Return the convolutions of one resolution."""
    first = convolution(in_channels, channels, 3, dropout)
    return nn.Sequential(first, convolution(channels, channels, 3, dropout))


def convolution(in_channels: int, channels: int, kernel_size: int, dropout: float) -> nn.Sequential:
    """Return a convolution that keeps the size, and what follows it."""
    padded = nn.Conv3d(in_channels, channels, kernel_size, padding=kernel_size // 2)
    return nn.Sequential(padded, *after_convolution(channels, dropout))


def after_convolution(channels: int, dropout: float) -> list[nn.Module]:
    """Return instance norm, ReLU and dropout."""
    return [nn.InstanceNorm3d(channels, affine=True), nn.ReLU(), nn.Dropout(dropout)]


def count_parameters(model: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(parameter.numel() for parameter in model.parameters())
