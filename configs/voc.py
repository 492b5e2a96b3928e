"""PASCAL VOC 2012, with SBD's annotations where they lie beside it, 21 classes: FCN on VGG-16.

    python train.py --config=configs/voc.py --workdir=runs/32s --config.data.dir=DIR \
        --config.model.weights=vgg_16.npz
    python train.py --config=configs/voc.py:fcn_16s --workdir=runs/16s --config.data.dir=DIR \
        --config.model.weights=runs/32s
    python train.py --config=configs/voc.py:fcn_8s --workdir=runs/8s --config.data.dir=DIR \
        --config.model.weights=runs/16s

Trains image by image: at native sizes, which void pixels fill up to 512x512 so that one program
serves all of them, with the sum of the pixels' losses, momentum .99, and biases at twice the rate
without decay. The rates are for sums of some 200,000 pixels; each finer network starts from the
coarser one, at a hundredth of its rate. `at_once` trains all scores of FCN-8s together from the
classifier. Colors are Caffe's, blue first, as the classifier's weights from there want them; with
those of torchvision set `data.normalization` to imagenet. No result is promised without
`model.weights`.

A variant is at_once, or a model, a head, or both joined by "+", as voc.py:resnet_34+fcn_8s.
"""

from ml_collections import ConfigDict

from rfjax.training import variants
from rfjax.training.config import base

# Of networks whose scores start from those of the coarser one; of all others that of fcn_32s.
RATES = {"fcn_32s": 1e-10, "fcn_16s": 1e-12, "fcn_8s": 1e-14}
AT_ONCE = (
    0.01,
    0.0001,
)  # of pool4 and pool3: their features are that much larger than those of fc7


def get_config(variant: str = "") -> ConfigDict:
    """The config of `variant`."""
    config = base()
    config.steps = 100_000
    config.batch_size = 1
    config.steps_per_call = 20
    config.eval_batch_size = 1
    config.eval_every = 4000
    config.checkpoint_every = 2000
    config.log_every = 100

    config.task.normalize = "none"

    config.data.name = "voc"
    config.data.normalization = "caffe"
    config.data.pad = (512, 512)

    config.model.name = "vgg_16"
    config.model.head = "fcn_32s"

    config.optimizer.schedule = "constant"
    config.optimizer.momentum = 0.99
    config.optimizer.rate_in_momentum = True
    config.optimizer.weight_decay = 5e-4
    config.optimizer.rates = ("*/bias=2",)
    config.optimizer.decays = ("*/bias=0",)
    at_once = variant == "at_once"
    config = variants.apply(config, "fcn_8s" if at_once else variant)
    config.optimizer.learning_rate = RATES.get(config.model.head, RATES["fcn_32s"])
    if at_once:
        config.optimizer.learning_rate = RATES["fcn_32s"]
        config.model.head_options.at_once = AT_ONCE
        config.steps = 300_000
    return config
