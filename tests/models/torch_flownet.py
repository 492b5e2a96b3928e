"""FlowNetS and FlowNetC in PyTorch, from their published lists of layers, with the usual names."""

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

WIDTHS = {"2": 64, "3": 128, "4": 256, "5": 512}
ENCODER = [
    *[("conv4", 512, 2), ("conv4_1", 512, 1), ("conv5", 512, 2), ("conv5_1", 512, 1)],
    *[("conv6", 1024, 2), ("conv6_1", 1024, 1)],
]


def conv(cin, cout, size=3, stride=1):
    return nn.Sequential(nn.Conv2d(cin, cout, size, stride, (size - 1) // 2), nn.LeakyReLU(0.1))


def deconv(cin, cout):
    return nn.Sequential(nn.ConvTranspose2d(cin, cout, 4, 2, 1), nn.LeakyReLU(0.1))


def correlation(first, second, reach=20, step=2):
    height, width = first.shape[2:]
    padded = nn.functional.pad(second, [reach] * 4)
    rows = []
    for down in range(0, 2 * reach + 1, step):
        for right in range(0, 2 * reach + 1, step):
            moved = padded[:, :, down : down + height, right : right + width]
            rows.append((first * moved).mean(1))
    return torch.stack(rows, 1)


class FlowNet(nn.Module):
    def __init__(self, *, widths=1.0, correlated=False):
        super().__init__()
        self.correlated = correlated
        w = lambda channels: round(channels * widths)
        self.conv1 = conv(3 if correlated else 6, w(64), 7, 2)
        self.conv2, self.conv3 = conv(w(64), w(128), 5, 2), conv(w(128), w(256), 5, 2)
        if correlated:
            self.conv_redir = conv(256, 32, 1)
        self.conv3_1 = conv(473 if correlated else w(256), w(256))
        cin = w(256)
        for name, cout, stride in ENCODER:
            self.add_module(name, conv(cin, w(cout), 3, stride))
            cin = w(cout)
        self.predict_flow6 = nn.Conv2d(cin, 2, 3, 1, 1)
        skips = {"5": w(512), "4": w(512), "3": w(256), "2": w(128)}
        for level, skip in skips.items():
            self.add_module(f"deconv{level}", deconv(cin, w(WIDTHS[level])))
            up = nn.ConvTranspose2d(2, 2, 4, 2, 1, bias=correlated)
            self.add_module(f"upsampled_flow{int(level) + 1}_to_{level}", up)
            cin = skip + w(WIDTHS[level]) + 2
            self.add_module(f"predict_flow{level}", nn.Conv2d(cin, 2, 3, 1, 1))

    def forward(self, first, second):
        if self.correlated:
            fine = self.conv2(self.conv1(first))
            maps = [self.conv3(fine), self.conv3(self.conv2(self.conv1(second)))]
            matched = nn.functional.leaky_relu(correlation(*maps), 0.1)
            x = torch.cat([self.conv_redir(maps[0]), matched], 1)
        else:
            fine = self.conv2(self.conv1(torch.cat([first, second], 1)))
            x = self.conv3(fine)
        skips = {2: fine, 3: self.conv3_1(x)}
        x = skips[3]
        for name, _, _ in ENCODER:
            x = skips[int(name[4])] = getattr(self, name)(x)
        flows = [self.predict_flow6(x)]
        for level in (5, 4, 3, 2):
            skip = skips[level]
            up = getattr(self, f"upsampled_flow{level + 1}_to_{level}")(flows[0])
            raised = getattr(self, f"deconv{level}")(x)
            size = skip.shape[2:]
            x = torch.cat([skip, *(y[:, :, : size[0], : size[1]] for y in (raised, up))], 1)
            flows.insert(0, getattr(self, f"predict_flow{level}")(x))
        return flows


def randomised(**options):
    torch.manual_seed(0)
    net = FlowNet(**options).eval()
    with torch.no_grad():
        for name, array in net.named_parameters():
            if name.endswith("bias"):
                array.uniform_(-0.1, 0.1)
            else:
                transposed = "deconv" in name or "upsampled" in name
                fan = array.shape[0] * 4 if transposed else array[0].numel()
                array.normal_().mul_((2 / fan) ** 0.5)
    return net
