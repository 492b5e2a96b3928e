"""Fully convolutional networks and Caffe's classifiers in PyTorch, with the names of the ports."""

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

CROPS = {32: (19,), 16: (5, 27), 8: (5, 9, 31)}
POOL = {"stride": 2, "ceil_mode": True}


def bilinear(classes, factor):
    """A transposed convolution of fixed interpolation."""
    size = 2 * factor
    taps = 1 - (torch.arange(size) - (size - 1) / 2).abs() / factor
    layer = nn.ConvTranspose2d(classes, classes, size, factor, bias=False)
    layer.weight.data.zero_()
    for k in range(classes):
        layer.weight.data[k, k] = torch.outer(taps, taps)
    return layer


def crop(x, offset, like):
    height, width = like.shape[2:]
    return x[:, :, offset : offset + height, offset : offset + width]


class FCN(nn.Module):
    """VGG-16 with scores of strides down to `stride`; `light` channels of fc6 and fc7."""

    def __init__(self, stride, classes, widths, depths, light):
        super().__init__()
        self.stride, self.depths, inputs = stride, depths, 3
        for block, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            for i in range(1, depth + 1):
                padding = 100 if (block, i) == (1, 1) else 1
                self.add_module(f"conv{block}_{i}", nn.Conv2d(inputs, width, 3, padding=padding))
                inputs = width
        self.fc6, self.fc7 = nn.Conv2d(inputs, light, 7), nn.Conv2d(light, light, 1)
        self.score_fr = nn.Conv2d(light, classes, 1)
        if stride < 32:
            self.upscore2 = bilinear(classes, 2)
            self.score_pool4 = nn.Conv2d(widths[3], classes, 1)
        if stride == 8:
            self.upscore_pool4 = bilinear(classes, 2)
            self.score_pool3 = nn.Conv2d(widths[2], classes, 1)
        self.last = "upscore" if stride == 32 else f"upscore{stride}"
        self.add_module(self.last, bilinear(classes, stride))

    def forward(self, x):
        image, pools, crops = x, {}, list(CROPS[self.stride])
        for block, depth in enumerate(self.depths, start=1):
            for i in range(1, depth + 1):
                x = torch.relu(getattr(self, f"conv{block}_{i}")(x))
            x = pools[block] = nn.functional.max_pool2d(x, 2, **POOL)
        y = self.score_fr(torch.relu(self.fc7(torch.relu(self.fc6(x)))))
        if self.stride < 32:
            y = self.upscore2(y)
            y = y + crop(self.score_pool4(pools[4]), crops.pop(0), y)
        if self.stride == 8:
            y = self.upscore_pool4(y)
            y = y + crop(self.score_pool3(pools[3]), crops.pop(0), y)
        return crop(getattr(self, self.last)(y), crops.pop(0), image)


class AlexNet(nn.Module):
    """CaffeNet with scores of stride 32."""

    def __init__(self, classes, light):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, 4, 100)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6, self.fc7 = nn.Conv2d(256, light, 6), nn.Conv2d(light, light, 1)
        self.score_fr = nn.Conv2d(light, classes, 1)

    def forward(self, image):
        x = image
        for layer in (self.conv1, self.conv2):
            x = nn.functional.max_pool2d(torch.relu(layer(x)), 3, **POOL)
            x = nn.functional.local_response_norm(x, 5, 1e-4, 0.75, 1.0)
        for layer in (self.conv3, self.conv4, self.conv5):
            x = torch.relu(layer(x))
        x = nn.functional.max_pool2d(x, 3, **POOL)
        y = self.score_fr(torch.relu(self.fc7(torch.relu(self.fc6(x)))))
        return crop(odd(y), 18, image)


def odd(scores):
    """Index-aligned interpolation by 32, uncropped."""
    taps = 1 - (torch.arange(63) - 31.0).abs() / 32
    classes = scores.shape[1]
    kernel = torch.outer(taps, taps).expand(classes, 1, 63, 63)
    return nn.functional.conv_transpose2d(scores, kernel, stride=32, groups=classes)


class GoogLeNet(nn.Module):
    """BVLC's with scores of stride 32; `inceptions` by name, the channels of their branches."""

    BRANCHES = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")

    def __init__(self, classes, inceptions):
        super().__init__()
        self.inceptions = inceptions
        self.layers = nn.ModuleDict({
            "conv1/7x7_s2": nn.Conv2d(3, 64, 7, 2, 3),
            "conv2/3x3_reduce": nn.Conv2d(64, 64, 1),
            "conv2/3x3": nn.Conv2d(64, 192, 3, padding=1),
        })  # fmt: skip
        inputs = 192
        for part, widths in inceptions.items():
            one, reduce3, three, reduce5, five, pool = widths
            reads = (inputs, inputs, reduce3, inputs, reduce5, inputs)
            sizes = (1, 1, 3, 1, 5, 1)
            rows = zip(self.BRANCHES, reads, widths, sizes, strict=True)
            for name, cin, cout, size in rows:
                layer = nn.Conv2d(cin, cout, size, padding=size // 2)
                self.layers[f"inception_{part}/{name}"] = layer
            inputs = one + three + five + pool
        self.layers["score_fr"] = nn.Conv2d(inputs, classes, 1)

    def arrays(self):
        """The state dict by the names of Caffe's layers."""
        return {n.removeprefix("layers."): a for n, a in self.state_dict().items()}

    def run(self, name, x):
        return torch.relu(self.layers[name](x))

    def inception(self, part, x):
        def run(name, x):
            return self.run(f"inception_{part}/{name}", x)

        pooled = nn.functional.max_pool2d(x, 3, 1, 1)
        branches = (
            run("1x1", x),
            run("3x3", run("3x3_reduce", x)),
            run("5x5", run("5x5_reduce", x)),
            run("pool_proj", pooled),
        )
        return torch.cat(branches, 1)

    def forward(self, image):
        pool, norm = nn.functional.max_pool2d, nn.functional.local_response_norm
        x = norm(pool(self.run("conv1/7x7_s2", image), 3, **POOL), 5, 1e-4, 0.75, 1.0)
        x = self.run("conv2/3x3", self.run("conv2/3x3_reduce", x))
        x = pool(norm(x, 5, 1e-4, 0.75, 1.0), 3, **POOL)
        for part in self.inceptions:
            x = pool(x, 3, **POOL) if part in ("4a", "5a") else x
            x = self.inception(part, x)
        return crop(odd(self.layers["score_fr"](x)), 1, image)


def alive(net, seed=0):
    """The network with weights that keep the size of what goes through them, and biases."""
    torch.manual_seed(seed)
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=1.0 if "score" in name else 0.0)
            nn.init.normal_(layer.bias, std=0.1)
    return net.eval()
