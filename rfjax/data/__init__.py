"""Data sets, augmentation, and batches.

dataset = rfjax.data.load("digit_scenes", "train")
for batch in rfjax.data.train_iterator(dataset, batch_size=16, seed=0): ...
"""

from rfjax import _extras

if fault := _extras.missing(__name__, "cv2", "grain", "tensorflow_datasets"):
    raise fault

from rfjax.data.augment import Augmentation as Augmentation
from rfjax.data.caching import cache_features as cache_features
from rfjax.data.checking import check as check
from rfjax.data.dataset import VOID as VOID
from rfjax.data.dataset import Dataset as Dataset
from rfjax.data.normalization import Normalization as Normalization
from rfjax.data.pipeline import eval_batches as eval_batches
from rfjax.data.pipeline import train_iterator as train_iterator
from rfjax.data.registry import load as load
from rfjax.data.registry import names as names
from rfjax.data.registry import register as register
