"""UNet 3+ in torch, NCHW: the reference for our numbers, and what a user deploys there. Huang et al. 2020."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
import torchvision
from torch import Tensor, nn

SUPPRESSED = 20.0  # as in flaxunet.models.guidance, which is not imported: this file deploys without JAX


def conv_norm(cin: int, cout: int) -> nn.Sequential:
    """3x3 convolution without bias, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(cin, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU())


class ResNet(nn.Module):
    """torchvision's ResNet as an encoder: image (B, C, H, W) to five maps of strides 2 to 32."""

    def __init__(self, name: str, in_channels: int = 3):
        super().__init__()
        resnet = getattr(torchvision.models, name)(weights=None)
        self.conv1, self.bn1 = resnet.conv1, resnet.bn1
        if in_channels != 3:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False)
        self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        self.layer3, self.layer4 = resnet.layer3, resnet.layer4
        deepest = resnet.fc.in_features
        self.channels = (64, deepest // 8, deepest // 4, deepest // 2, deepest)
        self.strides = (2, 4, 8, 16, 32)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps, finest first."""
        maps = [F.relu(self.bn1(self.conv1(image)))]
        x = F.max_pool2d(maps[0], 3, 2, padding=1)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps


class Plain(nn.Module):
    """Five double convolutions with 2x2 pooling between them: maps of strides 1 to 16, finest first."""

    def __init__(self, in_channels: int = 3, widths: Sequence[int] = (64, 128, 256, 512, 1024)):
        super().__init__()
        inputs = (in_channels, *widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(conv_norm(cin, width), conv_norm(width, width))
            for cin, width in zip(inputs, widths, strict=True)
        )
        self.channels = tuple(widths)
        self.strides = tuple(2**level for level in range(len(widths)))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps, finest first."""
        maps: list[Tensor] = []
        for stage in self.stages:
            x = F.max_pool2d(maps[-1], 2, ceil_mode=True) if maps else image
            maps.append(stage(x))
        return maps


class FullScaleNode(nn.Module):
    """D_n: five branches of 64 channels, concatenated, then one convolution of 320."""

    def __init__(self, channels: Sequence[int], level: int, strides: Sequence[int]):
        super().__init__()
        self.branches = nn.ModuleList(conv_norm(cin, 64) for cin in channels)
        self.fuse = conv_norm(64 * len(channels), 64 * len(channels))
        self.level, self.ratios = level, [strides[level] // stride for stride in strides[:level]]

    def forward(self, scales: Sequence[Tensor]) -> Tensor:
        """scales: maps 1 .. n and D_(n+1) .. D_5."""
        size, out = scales[self.level].shape[2:], []
        for index, (branch, x) in enumerate(zip(self.branches, scales, strict=True)):
            if index < self.level:
                x = F.max_pool2d(x, self.ratios[index], ceil_mode=True)
            elif index > self.level:
                x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
            out.append(branch(x))
        return self.fuse(torch.cat(out, 1))


class UNet3PlusDecoder(nn.Module):
    """Maps 1 .. 5 to (D1, .., D4, D5), finest first."""

    def __init__(self, channels: Sequence[int], strides: Sequence[int]):
        super().__init__()
        depth, width = len(channels) - 1, 64 * len(channels)
        self.nodes = nn.ModuleList()
        for level in range(depth):
            inputs = [*channels[: level + 1], *[width] * (depth - level - 1), channels[-1]]
            self.nodes.append(FullScaleNode(inputs, level, strides))
        self.channels = (*[width] * depth, channels[-1])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps, finest first."""
        decoded = [maps[-1]]
        for level in reversed(range(len(self.nodes))):
            decoded.insert(0, self.nodes[level]([*maps[: level + 1], *decoded]))
        return decoded


class Guidance(nn.Module):
    """Says from the deepest map which foreground classes an image contains."""

    def __init__(self, cin: int, classes: int):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.conv = nn.Conv2d(cin, max(classes - 1, 1), 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) to presence logits (B, classes - 1), or (B, 1) for one class."""
        return self.conv(self.dropout(x)).amax((2, 3))


def suppress_absent(logits: Tensor, presence: Tensor) -> Tensor:
    """Logits (B, K, H, W) with those of classes that `presence` (see `Guidance`) denies far below the others.

    Source: flaxunet.models.guidance.suppress_absent.
    """
    absent = (presence < 0)[:, :, None, None]
    if logits.shape[1] == 1:
        return torch.where(absent, logits.clamp(max=-SUPPRESSED), logits)
    low = logits.amin(1, keepdim=True) - SUPPRESSED
    return torch.cat([logits[:, :1], torch.where(absent, low, logits[:, 1:])], 1)


class UNet3Plus(nn.Module):
    """UNet 3+ over torchvision's ResNet or the plain encoder.

    Args:
      encoder: torchvision's name of a ResNet, or "plain".
      in_channels, classes: C of the image, K of the logits.
      deep_supervision: heads on D1 .. D5 instead of on D1.
      guidance: remove classes from the prediction that `presence` denies.
    """

    def __init__(
        self,
        encoder: str = "resnet34",
        in_channels: int = 3,
        classes: int = 1,
        deep_supervision: bool = False,
        guidance: bool = False,
    ):
        super().__init__()
        self.encoder = Plain(in_channels) if encoder == "plain" else ResNet(encoder, in_channels)
        self.decoder = UNet3PlusDecoder(self.encoder.channels, self.encoder.strides)
        widths = self.decoder.channels if deep_supervision else self.decoder.channels[:1]
        self.heads = nn.ModuleList(nn.Conv2d(width, classes, 3, padding=1) for width in widths)
        self.guidance = Guidance(self.encoder.channels[-1], classes) if guidance else None

    def outputs(self, image: Tensor) -> list[Tensor]:
        """The logits of every head, each (B, K, H, W), the main head's first; nothing is removed."""
        return self._logits(self.encoder(image), image)

    def presence(self, image: Tensor) -> Tensor:
        """The presence logits (B, K - 1), or (B, 1) for one class, of a network with guidance."""
        if self.guidance is None:
            raise ValueError("this network was built without guidance")
        return self.guidance(self.encoder(image)[-1])

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) to the main head's logits (B, K, H, W), with guidance without absent classes."""
        maps = self.encoder(image)
        logits = self._logits(maps, image)[0]
        return logits if self.guidance is None else suppress_absent(logits, self.guidance(maps[-1]))

    def _logits(self, maps: Sequence[Tensor], image: Tensor) -> list[Tensor]:
        return [
            F.interpolate(head(x), size=image.shape[2:], mode="bilinear", align_corners=False)
            for head, x in zip(self.heads, self.decoder(maps), strict=False)
        ]
