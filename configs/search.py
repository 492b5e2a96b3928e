"""Search against enumeration on digit scenes enlarged by 1, 2 and 4.

    python -m rfjax.search --config=configs/search.py --workdir=runs/search

Scenes of 64x64 pixels with digits of 10-16 pixels, the same enlarged and cropped to 64x64 again, so
that a step costs the same. At each enlargement three seeds are searched from sigma 0.5 and from 2,
since a start far above the optimum may run away and one far below it takes long. Ten fixed sigmas
are trained with the same three seeds.
"""

from ml_collections import ConfigDict

from rfjax.studies.search.config import base


def get_config() -> ConfigDict:
    """The config."""
    config = base()
    config.enlargements = (1, 2, 4)
    config.population.seed = (0, 1, 2)
    config.population.sigma = (0.5, 2.0)
    config.population.learning_rate = (0.1,)
    config.population.covariance_multiplier = (2.0,)
    config.enumeration.sigma = (0.25, 0.35, 0.5, 0.71, 1.0, 1.41, 2.0, 2.83, 4.0, 5.66)

    training = config.training
    training.steps = 1000
    training.batch_size = 16
    training.eval_batch_size = 32
    training.data.options.min_scale = 10.0
    training.data.options.max_scale = 16.0
    training.data.options.val_scenes = 96
    training.data.augmentation.crop = (64, 64)
    training.model.head = "composition"
    training.model.backbone_options.width = 12
    training.optimizer.warmup_steps = 50
    return config
