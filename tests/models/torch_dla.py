"""DLA-34 with its decoder in PyTorch, from its published description, with the usual names."""

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn
WIDTHS = (16, 32, 64, 128, 256, 512)


def unit(cin, cout, size=3, stride=1):
    """Convolution, normalisation, ReLU."""
    convolution = nn.Conv2d(cin, cout, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(cout), nn.ReLU())


class Block(nn.Module):
    def __init__(self, cin, cout, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)

    def forward(self, x, shortcut):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + shortcut)


class Root(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 1, bias=False)
        self.bn = nn.BatchNorm2d(cout)

    def forward(self, *maps):
        return torch.relu(self.bn(self.conv(torch.cat(maps, 1))))


class Tree(nn.Module):
    """`extra`: channels of the children that the (last) root reads besides its two blocks."""

    def __init__(self, cin, cout, depth, *, stride, level_root=False, extra=0, dead=True):
        super().__init__()
        extra += cin if level_root else 0
        self.level_root, self.depth, self.stride = level_root, depth, stride
        if depth == 1:
            self.tree1, self.tree2 = Block(cin, cout, stride), Block(cout, cout)
            self.root = Root(2 * cout + extra, cout)
        else:
            self.tree1 = Tree(cin, cout, depth - 1, stride=stride)
            self.tree2 = Tree(cout, cout, depth - 1, stride=1, extra=extra + cout)
        self.project = None
        if cin != cout and (depth == 1 or dead):  # in a deep tree nothing reads its output
            projection = nn.Conv2d(cin, cout, 1, bias=False)
            self.project = nn.Sequential(projection, nn.BatchNorm2d(cout))

    def forward(self, x, children=()):
        bottom = nn.functional.max_pool2d(x, self.stride) if self.stride > 1 else x
        children = (*children, bottom) if self.level_root else children
        if self.depth > 1:
            x1 = self.tree1(x)
            return self.tree2(x1, (*children, x1))
        x1 = self.tree1(x, bottom if self.project is None else self.project(bottom))
        return self.root(self.tree2(x1, x1), x1, *children)


class Base(nn.Module):
    """The classification network, all levels of which are returned."""

    def __init__(self, *, dead=True):
        super().__init__()
        self.base_layer = unit(3, 16, 7)
        self.level0, self.level1 = unit(16, 16), unit(16, 32, stride=2)
        for level, depth in ((2, 1), (3, 2), (4, 2), (5, 1)):
            tree = Tree(
                WIDTHS[level - 1], WIDTHS[level], depth, stride=2, level_root=level > 2, dead=dead
            )
            self.add_module(f"level{level}", tree)
        self.fc = nn.Conv2d(512, 1000, 1)

    def forward(self, x):
        x, maps = self.base_layer(x), []
        for level in range(6):
            x = getattr(self, f"level{level}")(x)
            maps.append(x)
        return maps


class Ida(nn.Module):
    def __init__(self, width, widths):
        super().__init__()
        self.count = len(widths)
        for i, cin in enumerate(widths[1:], start=1):
            self.add_module(f"proj_{i}", nn.Identity() if cin == width else unit(cin, width, 1))
            raising = nn.ConvTranspose2d(width, width, 4, 2, 1, groups=width, bias=False)
            self.add_module(f"up_{i}", raising)
            self.add_module(f"node_{i}", unit(2 * width, width))

    def forward(self, maps):
        x, merged = maps[0], []
        for i in range(1, self.count):
            raised = getattr(self, f"up_{i}")(getattr(self, f"proj_{i}")(maps[i]))
            x = getattr(self, f"node_{i}")(torch.cat([x, raised], 1))
            merged.append(x)
        return merged


class DlaUp(nn.Module):
    def __init__(self, widths):
        super().__init__()
        inputs = list(widths)
        for i in range(len(widths) - 1):
            j = len(widths) - 2 - i
            self.add_module(f"ida_{i}", Ida(widths[j], inputs[j:]))
            inputs[j + 1 :] = [widths[j]] * (i + 1)

    def forward(self, maps):
        maps = list(maps)
        for i in range(len(maps) - 1):
            maps[len(maps) - 1 - i :] = getattr(self, f"ida_{i}")(maps[len(maps) - 2 - i :])
        return maps[-1]


class Segmentation(nn.Module):
    """The reference's segmentation network, its scores before the fixed upsampling."""

    def __init__(self, num_classes, ratio):
        super().__init__()
        self.first = {2: 1, 4: 2}[ratio]
        self.base = Base()
        self.dla_up = DlaUp(WIDTHS[self.first :])
        self.fc = nn.Sequential(nn.Conv2d(WIDTHS[self.first], num_classes, 1))
        size = 2 * ratio
        self.up = nn.ConvTranspose2d(
            num_classes, num_classes, size, ratio, ratio // 2, groups=num_classes, bias=False
        )

    def features(self, x):
        return self.dla_up(self.base(x)[self.first :])

    def forward(self, x):
        return self.fc(self.features(x))


def randomise(net, seed=0):
    """The network in evaluation mode, no statistic, scale or bias of which is trivial."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        return torch.rand(tensor.shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                fan = 4 if isinstance(module, nn.ConvTranspose2d) else module.weight[0].numel()
                noise = torch.randn(module.weight.shape, generator=generator)
                module.weight.copy_(noise * fan**-0.5)
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(uniform(module.weight, 0.5, 1.5))
                module.bias.copy_(uniform(module.bias, -0.5, 0.5))
                module.running_mean.copy_(uniform(module.running_mean, -0.5, 0.5))
                module.running_var.copy_(uniform(module.running_var, 0.3, 1.5))
    return net.eval()
