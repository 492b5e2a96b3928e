"""The reference networks in PyTorch, from their published descriptions, with the usual names."""

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn


def conv(cin, cout, size=3, stride=1, dilation=1):
    padding = dilation * (size - 1) // 2
    return nn.Conv2d(cin, cout, size, stride, padding, dilation, bias=False)


class Block(nn.Module):
    """A basic block, or a bottleneck with expansion 4."""

    def __init__(self, cin, width, *, stride, dilation, expansion, residual=True):
        super().__init__()
        self.residual = residual
        if expansion == 1:
            convs = [conv(cin, width, 3, stride, dilation), conv(width, width, 3, 1, dilation)]
        else:
            convs = [
                conv(cin, width, 1),
                conv(width, width, 3, stride, dilation),
                conv(width, 4 * width, 1),
            ]
        self.depth = len(convs)
        for number, layer in enumerate(convs, start=1):
            self.add_module(f"conv{number}", layer)
            self.add_module(f"bn{number}", nn.BatchNorm2d(layer.out_channels))
        self.downsample = None
        if stride != 1 or cin != width * expansion:
            cout = width * expansion
            self.downsample = nn.Sequential(conv(cin, cout, 1, stride), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = x
        for number in range(1, self.depth + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = torch.relu(y) if number < self.depth else y
        if self.residual:
            y = y + (x if self.downsample is None else self.downsample(x))
        return torch.relu(y)


def stage(
    cin, width, depth, *, stride=1, dilation=1, first_dilation=None, expansion=1, residual=True
):
    blocks = []
    for index in range(depth):
        blocks.append(
            Block(
                cin,
                width,
                stride=stride if index == 0 else 1,
                dilation=first_dilation if index == 0 and first_dilation else dilation,
                expansion=expansion,
                residual=residual,
            )
        )
        cin = width * expansion
    return nn.Sequential(*blocks)


def plain(cin, width, depth, *, stride=1, dilation=1):
    layers = []
    for index in range(depth):
        layers += [
            conv(cin if index == 0 else width, width, 3, stride if index == 0 else 1, dilation),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class Network(nn.Module):
    """Children that are applied in the order in which they were added."""

    def forward(self, x):
        for child in self.children():
            x = child(x)
        return x


def resnet(depths, *, expansion, dilated=False, transition=(1, 1)):
    """ResNet, or with `dilated` DRN-A; the dilations of the first blocks of its dilated stages."""
    net = Network()
    net.add_module("conv1", conv(3, 64, 7, 2))
    net.add_module("bn1", nn.BatchNorm2d(64))
    net.add_module("relu", nn.ReLU())
    net.add_module("maxpool", nn.MaxPool2d(3, 2, 1))
    cin = 64
    for number, (width, depth) in enumerate(zip((64, 128, 256, 512), depths, strict=True), start=1):
        options = {"stride": 1 if number == 1 else 2}
        if dilated and number >= 3:
            options = {"dilation": {3: 2, 4: 4}[number], "first_dilation": transition[number - 3]}
        net.add_module(f"layer{number}", stage(cin, width, depth, expansion=expansion, **options))
        cin = width * expansion
    return net


def drn(arch, depths, *, expansion):
    """DRN-C or DRN-D."""
    net = Network()
    if arch == "C":
        net.add_module("conv1", conv(3, 16, 7))
        net.add_module("bn1", nn.BatchNorm2d(16))
        net.add_module("relu", nn.ReLU())
    else:
        net.add_module("layer0", nn.Sequential(conv(3, 16, 7), nn.BatchNorm2d(16), nn.ReLU()))
    cin = 16
    widths, dilations = (16, 32, 64, 128, 256, 512, 512, 512), (1, 1, 1, 1, 2, 4, 2, 1)
    stages = zip(widths, depths, dilations, strict=True)
    for number, (width, depth, dilation) in enumerate(stages, start=1):
        stride = 2 if number in (2, 3, 4) else 1
        outer = number in (1, 2, 7, 8)
        expands = 1 if outer else expansion
        if outer and arch == "D":
            layer = plain(cin, width, depth, stride=stride, dilation=dilation)
        else:
            layer = stage(
                cin,
                width,
                depth,
                stride=stride,
                dilation=dilation,
                expansion=expands,
                residual=number < 7,
            )
        net.add_module(f"layer{number}", layer)
        cin = width * expands
    return net


NETWORKS = {
    "resnet_18": lambda: resnet((2, 2, 2, 2), expansion=1),
    "resnet_50": lambda: resnet((3, 4, 6, 3), expansion=4),
    "drn_a_50, previous": lambda: resnet(
        (3, 4, 6, 3), expansion=4, dilated=True, transition=(1, 2)
    ),
    "drn_a_34": lambda: resnet((3, 4, 6, 3), expansion=1, dilated=True),
    "drn_c_26": lambda: drn("C", (1, 1, 2, 2, 2, 2, 1, 1), expansion=1),
    "drn_c_58": lambda: drn("C", (1, 1, 3, 4, 6, 3, 1, 1), expansion=4),
    "drn_d_22": lambda: drn("D", (1, 1, 2, 2, 2, 2, 1, 1), expansion=1),
    "drn_d_24": lambda: drn("D", (1, 1, 2, 2, 2, 2, 2, 2), expansion=1),
    "drn_d_54": lambda: drn("D", (1, 1, 3, 4, 6, 3, 1, 1), expansion=4),
}


def randomised(name, seed=0):
    """The network in evaluation mode, no statistic, scale or bias of which is trivial."""
    generator = torch.Generator().manual_seed(seed)
    net = NETWORKS[name]().eval()

    def uniform(tensor, low, high):
        return torch.rand(tensor.shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                fan = module.weight[0].numel()
                noise = torch.randn(module.weight.shape, generator=generator)
                module.weight.copy_(noise * fan**-0.5)
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(uniform(module.weight, 0.5, 1.5))
                module.bias.copy_(uniform(module.bias, -0.5, 0.5))
                module.running_mean.copy_(uniform(module.running_mean, -0.5, 0.5))
                module.running_var.copy_(uniform(module.running_var, 0.3, 1.5))
    return net


def segmentation(net, features, num_classes, stride, seed=1):
    """The reference's segmentation network of `net`: numbered children, score, fixed upsampling."""
    torch.manual_seed(seed)
    whole = nn.Module()
    whole.base = nn.Sequential(*net.children())
    whole.seg = nn.Conv2d(features, num_classes, 1)
    whole.up = nn.ConvTranspose2d(
        num_classes, num_classes, 2 * stride, stride, stride // 2, groups=num_classes, bias=False
    )
    return whole.eval()
