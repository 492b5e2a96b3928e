"""MobileNetV2, Xception-65 and the head of DeepLab v3+ in PyTorch, from their descriptions."""

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

from tests.models.torch_networks import conv  # noqa: E402  (it needs torch)


def depthwise(channels, stride=1, dilation=1):
    return nn.Conv2d(channels, channels, 3, stride, dilation, dilation, groups=channels, bias=False)


def activated(layer):
    return nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU6())


class Inverted(nn.Module):
    """A block under torchvision's names."""

    def __init__(self, cin, cout, *, expansion, stride, dilation):
        super().__init__()
        width = cin * expansion
        parts = [activated(conv(cin, width, 1))] if expansion != 1 else []
        parts += [activated(depthwise(width, stride, dilation))]
        self.conv = nn.Sequential(*parts, conv(width, cout, 1), nn.BatchNorm2d(cout))
        self.fits = stride == 1 and cin == cout

    def forward(self, x):
        return x + self.conv(x) if self.fits else self.conv(x)


def mobilenet(blocks, top):
    """Blocks are (expansion, channels, stride, dilation)."""
    layers, cin = [activated(conv(3, 32, 3, 2))], 32
    for expansion, cout, stride, dilation in blocks:
        options = {"expansion": expansion, "stride": stride, "dilation": dilation}
        layers.append(Inverted(cin, cout, **options))
        cin = cout
    net = nn.Module()
    net.features = nn.Sequential(*layers, *([activated(conv(320, 1280, 1))] if top else []))
    net.forward = net.features.forward
    return net


def normed(channels):
    return nn.BatchNorm2d(channels, eps=1e-3)


class Separable(nn.Module):
    """A depthwise and a 1x1 convolution under timm's names."""

    def __init__(self, cin, cout, stride, dilation, inner):
        super().__init__()
        self.conv_dw, self.bn_dw = depthwise(cin, stride, dilation), normed(cin)
        self.conv_pw, self.bn_pw = conv(cin, cout, 1), normed(cout)
        self.act = nn.ReLU() if inner else nn.Identity()

    def forward(self, x):
        return self.act(self.bn_pw(self.conv_pw(self.act(self.bn_dw(self.conv_dw(x))))))


class Block(nn.Module):
    def __init__(self, cin, widths, stride, dilation, residual):
        super().__init__()
        self.stack, self.residual, self.shortcut = nn.Sequential(), residual, None
        for number, width in enumerate(widths, start=1):
            first = widths[number - 2] if number > 1 else cin
            step = stride if number == 3 else 1
            if residual:
                self.stack.add_module(f"act{number}", nn.ReLU())
            layer = Separable(first, width, step, dilation, not residual)
            self.stack.add_module(f"conv{number}", layer)
        if residual and (stride != 1 or cin != widths[-1]):
            self.shortcut = nn.Sequential()
            self.shortcut.add_module("conv", conv(cin, widths[-1], 1, stride))
            self.shortcut.add_module("bn", normed(widths[-1]))

    def forward(self, x):
        y = self.stack(x)
        if not self.residual:
            return y
        return y + (x if self.shortcut is None else self.shortcut(x))


def xception(blocks):
    """Blocks are (widths, stride, dilation)."""

    def stem(cin, cout, stride):
        layer = nn.Sequential()
        layer.add_module("conv", conv(cin, cout, 3, stride))
        layer.add_module("bn", normed(cout))
        layer.add_module("act", nn.ReLU())
        return layer

    net, cin = nn.Module(), 64
    net.stem = nn.Sequential(stem(3, 32, 2), stem(32, 64, 1))
    net.blocks = nn.Sequential()
    for number, (widths, stride, dilation) in enumerate(blocks):
        block = Block(cin, widths, stride, dilation, number < len(blocks) - 1)
        net.blocks.add_module(str(number), block)
        cin = widths[-1]
    net.forward = lambda x: net.blocks(net.stem(x))
    return net


def activated_relu(cin, cout, size, dilation=1):
    return nn.Sequential(conv(cin, cout, size, 1, dilation), nn.BatchNorm2d(cout), nn.ReLU())


class DeepLab(nn.Module):
    """The head of DeepLab v3+, with children in the order in which they are computed."""

    def __init__(self, cin, fine, classes, *, width, low, rates):
        super().__init__()
        branches = [activated_relu(cin, width, 1)]
        branches += [activated_relu(cin, width, 3, rate) for rate in rates]
        self.branches = nn.ModuleList(branches)
        self.pool = activated_relu(cin, width, 1)
        self.project = activated_relu(width * (len(rates) + 2), width, 1)
        self.low = activated_relu(fine, low, 1)
        self.fuse = nn.Sequential(
            activated_relu(width + low, width, 3), activated_relu(width, width, 3)
        )
        self.score = nn.Conv2d(width, classes, 1)

    def forward(self, fine, last):
        pooled = self.pool(last.mean((2, 3), keepdim=True)).expand(-1, -1, *last.shape[2:])
        x = self.project(torch.cat([*(branch(last) for branch in self.branches), pooled], 1))
        x = nn.functional.interpolate(x, size=fine.shape[2:], mode="bilinear")
        return self.score(self.fuse(torch.cat([x, self.low(fine)], 1)))


def randomised(net, seed=0):
    """The network in evaluation mode, no statistic, scale or bias of which is trivial."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        return torch.rand(tensor.shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                noise = torch.randn(module.weight.shape, generator=generator)
                module.weight.copy_(noise * module.weight[0].numel() ** -0.5)
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(uniform(module.weight, 0.5, 1.5))
                module.bias.copy_(uniform(module.bias, -0.5, 0.5))
                module.running_mean.copy_(uniform(module.running_mean, -0.5, 0.5))
                module.running_var.copy_(uniform(module.running_var, 0.3, 1.5))
    return net.eval()
