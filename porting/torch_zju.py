"""UNet 3+ as its authors published it, NCHW: the names and shapes of their weights. Huang et al. 2020."""

from collections import OrderedDict

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from flaxunet.models.decoders.unet3plus import zju_branch

WIDTHS = (64, 128, 256, 512, 1024)
SCALES = (1, 2, 3, 4, 5)
NODES = (4, 3, 2, 1)
BRANCH, NODE = 64, 320


def _conv_norm(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout), nn.ReLU())


class ZJUNet(nn.Module):
    """UNet 3+ over the plain encoder, with biases before the batch norms.

    The published network ends in a sigmoid and takes sides divisible by 16; this one gives logits for any.

    Args:
      in_channels, classes: C of the image, K of the logits.
      deep_supervision: heads on D1 .. D5 instead of on D1.
    """

    def __init__(self, in_channels: int = 3, classes: int = 1, deep_supervision: bool = False):
        super().__init__()
        for scale, cin, cout in zip(SCALES, (in_channels, *WIDTHS), WIDTHS, strict=False):
            pair = OrderedDict[str, nn.Module](conv1=_conv_norm(cin, cout), conv2=_conv_norm(cout, cout))
            self.add_module(f"conv{scale}", nn.Sequential(pair))
        for node in NODES:
            for scale in SCALES:
                branch, cin = zju_branch(scale, node), NODE if node < scale < 5 else WIDTHS[scale - 1]
                self.add_module(f"{branch}_conv", nn.Conv2d(cin, BRANCH, 3, padding=1))
                self.add_module(f"{branch}_bn", nn.BatchNorm2d(BRANCH))
            self.add_module(f"conv{node}d_1", nn.Conv2d(NODE, NODE, 3, padding=1))
            self.add_module(f"bn{node}d_1", nn.BatchNorm2d(NODE))
        self.heads = SCALES if deep_supervision else SCALES[:1]
        for scale in self.heads:
            cin = NODE if scale < 5 else WIDTHS[-1]
            self.add_module(f"outconv{scale}", nn.Conv2d(cin, classes, 3, padding=1))

    def encoder(self, image: Tensor) -> list[Tensor]:
        """The five maps of the encoder, finest first."""
        maps: list[Tensor] = []
        for scale in SCALES:
            x = F.max_pool2d(maps[-1], 2, ceil_mode=True) if maps else image
            maps.append(self.get_submodule(f"conv{scale}")(x))
        return maps

    def outputs(self, image: Tensor) -> list[Tensor]:
        """The logits of every head, each (B, K, H, W), the main head's first."""
        maps = dict(enumerate(self.encoder(image), 1))
        decoded = {5: maps[5]}
        for node in NODES:
            decoded[node] = self._node(node, maps, decoded)
        logits = [self.get_submodule(f"outconv{scale}")(decoded[scale]) for scale in self.heads]
        return [F.interpolate(x, size=image.shape[2:], mode="bilinear") for x in logits]

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) to the main head's logits (B, K, H, W)."""
        return self.outputs(image)[0]

    def _node(self, node: int, maps: dict[int, Tensor], decoded: dict[int, Tensor]) -> Tensor:
        branches = []
        for scale in SCALES:
            x = decoded[scale] if scale > node else maps[scale]
            if scale < node:
                x = F.max_pool2d(x, 2 ** (node - scale), ceil_mode=True)
            elif scale > node:
                x = F.interpolate(x, size=maps[node].shape[2:], mode="bilinear")
            branch = zju_branch(scale, node)
            branches.append(self._conv_norm(f"{branch}_conv", f"{branch}_bn", x))
        return self._conv_norm(f"conv{node}d_1", f"bn{node}d_1", torch.cat(branches, 1))

    def _conv_norm(self, conv: str, norm: str, x: Tensor) -> Tensor:
        return F.relu(self.get_submodule(norm)(self.get_submodule(conv)(x)))
