"""Every key of a run's config, with its default and its meaning."""

from typing import Any

from ml_collections import ConfigDict

from rfjax.training.layer_options import adapting_options, data_options, head_options
from rfjax.training.layer_options import option as option


def base() -> ConfigDict:
    """The config with every key at its default, locked.

    Returns:
        A locked `ConfigDict`. `seed` drives the initial parameters, the order of the images and
        every random number of augmentation and dropout. All counts named `*_every` are in steps.

    Example:
        >>> config = base()
        >>> config.optimizer.momentum
        0.9
        >>> config.is_locked
        True
    """
    config = ConfigDict()
    config.seed = 0
    config.steps = 1500  # updates in all; the learning rate reaches zero there
    config.steps_per_call = 1  # that devices make on their own, without the host
    config.batch_size = 16  # images per update, over all devices of all processes
    config.parallel = "pmap"  # pmap | shard_map: how a batch is spread over devices
    # all | last_stage (the head) | structure (covariances and offsets), or patterns of the paths of
    # parameters, as "backbone/layer4_*, head/*"
    config.trainable = "all"

    config.eval_every = 500  # besides at the end
    config.eval_batch_size = 16  # over all devices; rounded up to a multiple of their number
    config.checkpoint_every = 500  # besides after each evaluation, at the end, and when interrupted
    config.keep_latest = 2  # checkpoints; the best one is kept besides
    config.log_every = 50
    # Evaluations in a row without a better score after which a run ends; 0 for none of it.
    config.stop_after = 0

    config.task = _task()
    config.data = _data()
    config.model = _model()
    config.optimizer = _optimizer()
    return config.lock()


def _task() -> ConfigDict:
    """What is learned."""
    task = ConfigDict()
    task.name = (
        "segmentation"  # segmentation | segmentations (several labels a pixel) | classification
    )
    task.normalize = "count"  # the sum of losses over what counts (pixels), or none: the sum itself
    task.cross_entropy = option(str)  # of segmentation: softmax | sigmoid | null_background
    task.sampling = option(float)  # probability that a cell of the last layer has a loss in a step
    task.cell = option(int)  # height and width of such a cell in pixels
    # Of segmentation by softmax: one for each class, or median_frequency, of the training data.
    task.class_weights = option(object)
    task.hard_examples = option(float)  # likewise: share of each picture's pixels that are learned
    task.focal = option(float)  # likewise: exponent of the focal loss; 0 is the cross-entropy
    task.dice = option(float)  # likewise: factor on the Dice loss that is added
    task.fusion = option(str)  # of guided: late_global | early | …, see models.guided
    task.shared = option(bool)  # of guided: whether one encoder reads support and query
    task.map = option(str)  # of guided: that features are taken from
    return task


def _data() -> ConfigDict:
    """The data set and how its training images are varied."""
    data = ConfigDict()
    data.name = "digit_scenes"  # one of `rfjax.data.names()`
    data.dir = ""  # where the data lie or are put; "" is the data set's own default
    data.options = data_options()  # of `rfjax.data.load`; None is the data set's own default

    data.normalization = "dataset"  # its own mean and deviation | imagenet | caffe
    data.augmentation = ConfigDict()
    data.cache = ConfigDict()
    # The network starts from this map, as "pool4", or from several, as "pool3, pool4", in the order
    # in which it makes them; they are computed once. "" from images
    data.cache.map = ""
    data.cache.dir = ""  # where the maps lie; "" is "maps" in the run's directory
    data.cache.dtype = "float16"  # float16 | float32, of the files
    data.pad = (0, 0)  # least height, width of a batch: zeros and void below and on the right
    data.augmentation.scale = (1.0, 1.0)  # factor drawn uniformly between the two
    data.augmentation.rotation = 0.0  # degrees, drawn from [-rotation, rotation]
    data.augmentation.crop = (0, 0)  # height, width in pixels; (0, 0) is no crop
    data.augmentation.color = 0.0  # 0.5: contrast, brightness, saturation by U[0.5, 1.5]
    data.augmentation.lighting = 0.0  # standard deviation of the principal-component noise
    data.augmentation.flip = False  # left-right, every second image
    return data


def _model() -> ConfigDict:
    """The network."""
    model = ConfigDict()
    model.name = "resnet_tiny"
    model.head = "score"
    model.head_options = head_options()
    model.composed = _composed()
    model.backbone_options = ConfigDict()  # width, depth are those of the tiny networks
    model.backbone_options.width = option(int)  # channels of the stem
    model.backbone_options.depth = option(int)
    model.backbone_options.output_stride = option(int)  # 32 | 16 | 8; of resnet_tiny 4 | 8
    model.backbone_options.down_ratio = option(int)  # of dla_*: 2 | 4
    model.backbone_options.transition = option(str)  # of drn_a_*: none | previous | full
    model.backbone_options.border = option(int)  # of vgg_*, alexnet: 100 | 81 | 0 (none)
    model.backbone_options.light = option(int)  # of vgg_*, alexnet: channels of fc6 and fc7
    model.backbone_options.context = option(str)  # of flownet_*: none | lsdfn | adadr
    model.backbone_options.samples = option(int)  # of flownet_*, of lsdfn
    model.backbone_options.sample_stride = option(int)  # likewise
    model.backbone_options.dropout = option(float)  # of vgg_*: share of fc6 and fc7
    model.batch_norm = ConfigDict()
    model.batch_norm.unbiased = True  # running variances with n / (n - 1), as PyTorch's; or Flax's
    model.dtype = "float32"  # float32 | bfloat16, of the computation; parameters are float32
    model.remat = False  # recompute activations in the backward pass to save memory
    # Channels of each of several networks whose scores are averaged, as (3, 1) of colors and depth;
    # () for one network of all channels.
    model.late_fusion = ()
    # Start from a file of torch-named arrays (.npz, .safetensors, .pth), or from the best of
    # another run; with late_fusion perhaps one for each network, with a comma between.
    model.weights = ""
    model.anew = ""  # patterns of the paths of parameters that start as drawn all the same
    return model


def _composed() -> ConfigDict:
    """Which convolutions of the backbone are composed with Gaussians, or adapt otherwise."""
    composed = adapting_options()
    # composition | gauss_deform | dynamic | deform | static_deform | pad | adadr: the layer of the
    # head of this name
    composed.layer = "composition"
    composed.patterns = ()  # of their paths, as "backbone/layer4_*/conv2"; () for none
    return composed


def _optimizer() -> ConfigDict:
    """The rule of the updates, the learning rate, and what they are for which parameters."""
    optimizer = ConfigDict()
    optimizer.learning_rate = 0.01
    optimizer.schedule = "poly"  # poly | cosine | constant, of the learning rate
    optimizer.poly_power = 0.9  # of poly: lr (1 - step/steps)^power; 0 keeps it constant
    optimizer.warmup_steps = 0  # linear from learning_rate / warmup_steps
    optimizer.rule = "momentum"  # momentum | adam | adamw
    optimizer.momentum = 0.9  # of adam and adamw: of the gradient's mean
    optimizer.weight_decay = 1e-4  # added to the gradient, before momentum; of adamw to the step
    optimizer.grad_clip = 0.0  # largest global norm of the gradient; 0 is no clipping
    optimizer.covariance_multiplier = 1.0  # of the learning rate, for covariances and offsets
    optimizer.covariance_decay = False  # whether weight decay acts on covariances and offsets
    optimizer.accumulate = 1  # steps whose gradients make one update
    optimizer.accumulation = "mean"  # mean | sum of these gradients
    optimizer.rates = ()  # factors on the learning rate by pattern of paths, as ("*/bias=2",)
    optimizer.decays = ()  # factors on the weight decay, likewise
    # Whether the rate is in the momentum, m <- momentum m + lr g, as Caffe has it.
    optimizer.rate_in_momentum = False
    # How much of itself the running mean of all variables keeps at an update, as 0.999. The mean
    # is what is evaluated, saved and used; 0 for the variables themselves.
    optimizer.average = 0.0
    return optimizer


def options(config: ConfigDict) -> dict[str, Any]:
    """The options of a section that were set, as keyword arguments."""
    return {key: value for key, value in config.to_dict().items() if value is not None}
