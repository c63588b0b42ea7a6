"""The network: a dilated ResNet, a spatial pyramid without projection, one decoder per task."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.model.recompute import recomputed
from examples.cityscapes.protocols import PROTOCOLS
from examples.common.checked_weights import load_weights, unwrapped

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

ApplyLayer = Callable[[nn.Module, Tensor], Tensor]
Output = Tensor | tuple[Tensor, Tensor]
"""A task's prediction, or the pair of it and the logarithm of its variance."""


def _plainly(module: nn.Module, features: Tensor) -> Tensor:
    return module(features)


class SceneNet(nn.Module):
    """Predicts everything about every pixel of a street image.

    Args:
        config: Decides the trunk, the pyramid, the decoders and the tasks.

    Shape:
        - ``image``: (B, 3, H, W), uint8.
        - output: by task name, (B, C, H, W) with a logit for every class, 2 offsets in pixels
          (x, y), or 1 disparity in pixels; with noise per pixel, the pair of disparity and log
          variance.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.predicts_noise = config.depth_noise == "per-pixel"
        self.has_dropout = config.dropout > 0
        num_classes = len(PROTOCOLS[config.protocol].class_names)
        channels = {
            "semantic": num_classes,
            "instance": 2,
            "depth": 2 if self.predicts_noise else 1,
        }
        self.trunk = Trunk(config.backbone, config.stages, config.output_stride)
        self.aspp = SpatialPyramid(self.trunk.out_channels, config.aspp_channels, config.aspp_rates)
        self.decoders = nn.ModuleDict(
            {
                task: decoder(
                    self.aspp.out_channels, config.decoder_channels, channels[task], config.dropout
                )
                for task in config.tasks
            }
        )
        self.precision = config.precision
        self.apply_layer = recomputed if config.checkpoint_activations else _plainly
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", _per_channel(_IMAGENET_MEAN), persistent=False)
        self.register_buffer("std", _per_channel(_IMAGENET_STD), persistent=False)

    def forward(self, image: Tensor) -> dict[str, Output]:
        """Return every task's output at the size of the image."""
        return self.decode(self.features(image), image.shape[-2:])

    def features(self, image: Tensor) -> Tensor:
        """Return what all tasks share."""
        pixels = (image / 255 - self.mean) / self.std
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with self._autocast(image.device.type):
            # (B, 1280, H/8, W/8)
            return self.apply_layer(self.aspp, self.trunk(pixels, self.apply_layer))

    def decode(self, shared: Tensor, size: Sequence[int]) -> dict[str, Output]:
        """Return every task's output at a size. Dropout, where there is any, happens only here."""
        with self._autocast(shared.device.type):
            outputs = {t: self.apply_layer(decode, shared) for t, decode in self.decoders.items()}
        # In float32 from here on: bfloat16 has three digits, and an offset of 200 px needs more.
        maps = {
            task: F.interpolate(output.float(), list(size), mode="bilinear", align_corners=False)
            for task, output in outputs.items()
        }
        if not self.predicts_noise:
            return {**maps}
        disparity, log_var = maps["depth"].split(1, dim=1)
        return maps | {"depth": (disparity, log_var)}

    def _autocast(self, device: str) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        # bfloat16 has the range of float32, so that no gradient needs scaling.
        return torch.autocast(device, dtype=torch.bfloat16)


def without_noise(outputs: dict[str, Output]) -> dict[str, Tensor]:
    """Return every task's prediction, without its predicted noise."""
    return {task: y[0] if isinstance(y, tuple) else y for task, y in outputs.items()}


class Trunk(nn.Module):
    """A torchvision ResNet's convolutions; beyond `output_stride`, dilation replaces strides."""

    def __init__(self, backbone: str, stages: int, output_stride: int) -> None:
        super().__init__()
        resnet = get_model(backbone, weights=None)
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
        layers = [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4][:stages]
        self.layers = nn.ModuleList(layers)
        dilate_beyond(layers, output_stride)
        self.out_channels = 64 * 2 ** (stages - 1) * layers[-1][-1].expansion

    def forward(self, pixels: Tensor, apply_layer: ApplyLayer = _plainly) -> Tensor:
        """Return the features of the last stage; `apply_layer` applies each residual block."""
        features = self.stem(pixels)
        for layer in self.layers:
            for block in layer.children():
                features = apply_layer(block, features)
        return features

    def load_resnet(self, state: dict[str, Tensor]) -> None:
        """Take the weights of a torchvision ResNet; its classifier is left out.

        Raises:
            ValueError: If a name, a shape or a value does not fit.
        """
        state = unwrapped(state)
        prefixes = {"conv1.": "stem.0.", "bn1.": "stem.1."}
        prefixes |= {f"layer{k + 1}.": f"layers.{k}." for k in range(len(self.layers))}
        renamed = {
            new + name.removeprefix(old): value
            for name, value in state.items()
            for old, new in prefixes.items()
            if name.startswith(old)
        }
        load_weights(self, renamed)


def dilate_beyond(layers: Iterable[nn.Module], output_stride: int) -> None:
    """Replace strides by dilation in ResNet stages, once they would exceed `output_stride`.

    This changes the convolutions of a network that is already built, as torchvision's own option
    refuses ResNet-18 and -34. The formerly strided convolution keeps the dilation of those before
    it, and all later ones double it. Subsampled, the features are exactly those of the strided
    network.
    """
    stride, dilation = 4, 1  # the stem's
    for layer in layers:
        before = dilation
        convolutions = [m for m in layer.modules() if isinstance(m, nn.Conv2d)]
        strided = [c for c in convolutions if c.stride == (2, 2)]
        if strided and stride * 2 <= output_stride:
            stride *= 2
        elif strided:
            dilation *= 2
            for convolution in strided:
                convolution.stride = (1, 1)
        spatial = [c for c in convolutions if c.kernel_size == (3, 3)]
        for position, convolution in enumerate(spatial):
            here = before if position == 0 else dilation
            convolution.dilation = convolution.padding = (here, here)


class SpatialPyramid(nn.Module):
    """Looks at the features at four dilations and as a whole; concatenated, not projected."""

    def __init__(self, in_channels: int, channels: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_bn_relu(in_channels, channels, kernel_size=1)])
        for rate in rates:
            self.branches.append(conv_bn_relu(in_channels, channels, kernel_size=3, dilation=rate))
        self.pooled = conv_bn_relu(in_channels, channels, kernel_size=1)
        self.out_channels = channels * (len(rates) + 2)

    def forward(self, features: Tensor) -> Tensor:
        """Return the shared features."""
        seen = [branch(features) for branch in self.branches]
        pooled = self.pooled(features.mean(dim=(2, 3), keepdim=True)).expand_as(seen[0])
        # An expanded tensor has no memory format, and without one `cat` would return to NCHW.
        pooled = pooled.contiguous(memory_format=torch.channels_last)
        return torch.cat([*seen, pooled], dim=1)  # (B, 1280, H/8, W/8)


def decoder(
    in_channels: int, channels: int, out_channels: int, dropout: float = 0.0
) -> nn.Sequential:
    """Return the layers from the shared features to one task's output."""
    hidden = conv_bn_relu(in_channels, channels, kernel_size=3)
    if dropout:
        # Dropping whole channels is one draw of the last layer's weights for all pixels. Dropping
        # single pixels would show the grid of the features, as interpolation averages between them.
        hidden.append(nn.Dropout2d(dropout))  # inside of `hidden`, so no weight's name changes
    return nn.Sequential(hidden, nn.Conv2d(channels, out_channels, kernel_size=1))


def conv_bn_relu(
    in_channels: int, channels: int, *, kernel_size: int, dilation: int = 1
) -> nn.Sequential:
    """Return a convolution that keeps the size, batch norm and ReLU."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(
            in_channels, channels, kernel_size, padding=padding, dilation=dilation, bias=False
        ),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


def _per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)
