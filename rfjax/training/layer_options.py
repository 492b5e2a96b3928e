"""The keys of a config for options of layers and data sets, which are theirs until they are set."""

from typing import Any

from ml_collections import ConfigDict, config_dict


def option(kind: type) -> Any:
    """A key of `kind` that is left to its layer until it is set."""
    return config_dict.placeholder(kind)


def composition_options() -> ConfigDict:
    """The options of a composition."""
    options = ConfigDict()
    options.sigma = option(float)  # initial, in pixels of the map that the layer acts on
    options.family = option(str)  # spherical | diagonal | full
    options.resample = option(bool)  # blur-resample, or blur alone
    options.mode = option(str)  # residual | absolute
    options.rate = option(float)  # factor on the warped points
    options.truncate = option(float)  # half size of the filter, in sigma
    options.padding = option(str)  # zero | edge | reflect | wrap | renormalized
    options.method = option(str)  # sampled | integrated | discrete
    options.support = option(str)  # hard | faded
    options.structure = option(str)  # minimal | channel | multiple
    options.components = option(int)  # Gaussians of multiple structure
    return options


def adapting_options() -> ConfigDict:
    """The options of the layers that stand for convolutions of a backbone; each takes its own."""
    options = composition_options()
    options.bound = option(float)  # of regressed log sigma
    options.link = option(str)  # of regressed sigma: exponential | linear
    options.mean = option(bool)  # whether the taps' centre is regressed as well
    options.offset_groups = option(int)  # of deform: parts of the channels with taps of their own
    options.modulated = option(bool)  # whether a mask of deform's samples is regressed as well
    options.dilations = option(tuple)  # of pad, those to choose of; of ccl, one for each contrast
    options.prior = option(str)  # of pad: markov | recurrent | gated
    options.temperature = option(float)  # of pad: of the softmax of samples
    options.activation = option(str)  # of pad: of its prior, tanh | relu | identity
    options.evaluation = option(str)  # of pad: hard | expected
    return options


def head_options() -> ConfigDict:
    """The options of all heads; each head takes those of its layer and refuses the others."""
    options = adapting_options()
    options.kernel_size = option(int)
    options.dilation = option(int)
    options.variant = option(str)  # of dog: contrast | shared; of aspp: v2 | v3
    options.sigma_center = option(float)
    options.sigma_surround = option(float)
    options.max_surround = option(float)
    options.rates = option(tuple)  # of aspp and deeplab_v3_plus, one for each branch
    options.blur = option(float)  # before dilated branches, in units of their dilation
    options.width = option(int)  # channels inside ccl, aspp and deeplab_v3_plus
    options.depth = option(int)  # of deeplab_v3_plus: 3x3 convolutions before the scores
    options.at = option(str)  # of deeplab_v3_plus: the finer map
    options.low = option(int)  # of deeplab_v3_plus: channels of the finer map
    options.fusion = option(str)  # of the scores of several contrasts: gated | sum
    options.normalize = option(bool)  # whether ccl does
    options.dropout = option(float)  # of aspp v3 and deeplab_v3_plus
    options.extent = option(float)  # of stn, in pixels of the map
    options.paths = option(int)  # of inflated; the rest is its, too
    options.sets = option(tuple)  # of each path the classes whose gradient is weighted
    options.weight = option(float)  # the factor on it
    options.initial = option(float)  # of inflated, inflated_conv: the first factor
    options.bounds = option(tuple)  # of the factor, (least, most)
    options.gradient = option(str)  # of the factor: paper | true | released
    options.per_image = option(bool)  # whether each image has a factor of its own
    options.channels = option(int)  # of lsdfn: channels that its filters read
    options.outputs = option(int)  # of lsdfn_concat: channels of its filters' outputs
    options.sample_stride = option(int)  # of lsdfn_concat: distance of the places that are read
    options.samples = option(int)  # of lsdfn: odd number of places that are read along each axis
    options.sample_strides = option(tuple)  # of lsdfn: their distances, one for each filter
    options.attention = option(bool)  # of lsdfn: whether samples and positions are weighted
    options.residual = option(bool)  # of lsdfn: whether its filters start from a mean of channels
    options.at_once = option(tuple)  # of fcn_16s, fcn_8s: factors of finer maps, (0.01, 0.0001)
    options.learn_upsampling = option(str)  # of fcn_16s, fcn_8s: class | full
    options.null_background = option(bool)  # of fcn_*: whether class 0 scores 0
    return options


def data_options() -> ConfigDict:
    """The options of all data sets; each takes its own and refuses the others."""
    options = ConfigDict()
    options.enlargement = option(int)  # whole factor, in training and evaluation
    options.reduction = option(int)  # of camvid, flying_chairs: likewise
    options.size = option(int)  # of digit scenes, in pixels; the rest is theirs, too
    options.min_scale = option(float)  # of digits, in pixels
    options.max_scale = option(float)
    options.mask = option(str)  # of digit scenes: foreground | background | both, hidden
    options.train_scenes = option(int)
    options.val_scenes = option(int)
    options.train_images = option(int)  # of digit images
    options.val_images = option(int)
    options.seed = option(int)
    options.year = option(int)  # of voc
    options.sbd = option(bool)  # of voc: whether to train on SBD where it lies there
    options.modality = option(str)  # rgb | depth | rgbd; of nyud also hha | rgb_hha
    options.labels = option(str)  # of digit scenes, sift_flow: semantic | geometric | both
    options.images = option(str)  # of folder: patterns of paths, with {split} and *
    options.masks = option(str)
    options.holdout = option(float)  # share of training for validation, where it has no folder
    options.ignore = option(str)  # value, or color #RRGGBB, of pixels without a class
    options.train_clips = option(int)  # of digit clips
    options.val_clips = option(int)
    options.length = option(int)  # of digit clips, in frames
    options.fastest = option(float)  # speed in digit clips, in pixels per frame
    options.frames = option(str)  # of davis, cityscapes_clips: labeled | all
    options.turns = option(int)  # of digit episodes: positions of a digit, 1 to 8
    options.image = option(str)  # of tfds: the feature of the image
    options.label = option(str)  # of tfds: that of its mask or class
    options.train = option(str)  # of tfds: which examples are the splits, as "train[:90%]"
    options.val = option(str)
    options.test = option(str)
    options.of = option(str)  # of episodes: the data set; the rest of both kinds of episodes
    options.kind = option(str)  # semantic | video | interactive | dense
    options.ways = option(int)  # classes, with that of what is no object
    options.shots = option(int)  # images that support each object
    options.points = option(int)  # of each class and image; 0: every pixel; unset: 1 to 100
    options.missing = option(str)  # what has no mark: unknown | negative
    options.folds = option(int)  # parts of the classes, of which one is held out; 1 holds out none
    options.fold = option(int)  # which one
    options.held_out = option(bool)  # whether training leaves it out
    options.train_episodes = option(int)
    options.val_episodes = option(int)
    options.motion = option(float)  # of digit_flow: largest displacement in pixels
    options.digits = option(int)  # of digit_flow: in a picture
    options.train_pairs = option(int)  # of digit_flow
    options.val_pairs = option(int)
    return options
