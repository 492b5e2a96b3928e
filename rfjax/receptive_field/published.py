"""Networks whose receptive fields have been published, as lists of layers.

Names and paddings are those of the references: FCN-AlexNet and FCN-VGG16 with 100 pixels around the
image (Long, Shelhamer & Darrell, CVPR 2015), GoogLeNet with and without its last average pooling.
"""

from rfjax.receptive_field.layers import Conv, Layer, Parallel, Pool

Named = dict[str, Layer]


def fcn_alexnet() -> Named:
    """FCN-AlexNet up to its scores."""
    return {
        "conv1": Conv(11, stride=4, padding=100),
        "pool1": Pool(3, stride=2, padding=0),
        "conv2": Conv(5),
        "pool2": Pool(3, stride=2, padding=0),
        "conv3": Conv(3),
        "conv4": Conv(3),
        "conv5": Conv(3),
        "pool5": Pool(3, stride=2, padding=0),
        "fc6": Conv(6, padding=0),
        "fc7": Conv(1),
        "score": Conv(1),
    }


def fcn_vgg16() -> Named:
    """FCN-VGG16 up to its scores."""
    layers: Named = {}
    for block, depth in enumerate((2, 2, 3, 3, 3), start=1):
        for number in range(1, depth + 1):
            first = block == number == 1
            layers[f"conv{block}_{number}"] = Conv(3, padding=100 if first else 1)
        layers[f"pool{block}"] = Pool(2, stride=2, padding=0)
    return layers | {"fc6": Conv(7, padding=0), "fc7": Conv(1), "score": Conv(1)}


def googlenet(*, average_pool: bool = True) -> Named:
    """GoogLeNet; an inception block is the union of its branches."""
    inception = Parallel([Conv(1)], [Conv(1), Conv(3)], [Conv(1), Conv(5)], [Pool(3), Conv(1)])
    layers: Named = {
        "conv1": Conv(7, stride=2),
        "pool1": Pool(3, stride=2, padding=0),
        "conv2_reduce": Conv(1),
        "conv2": Conv(3),
        "pool2": Pool(3, stride=2, padding=0),
    }
    for block, letters in ((3, "ab"), (4, "abcde"), (5, "ab")):
        layers |= {f"inception_{block}{letter}": inception for letter in letters}
        if block < 5:
            layers[f"pool{block}"] = Pool(3, stride=2, padding=0)
    return layers | ({"pool5": Pool(7, padding=0)} if average_pool else {})


NETWORKS = {"fcn_alexnet": fcn_alexnet, "fcn_vgg16": fcn_vgg16, "googlenet": googlenet}
