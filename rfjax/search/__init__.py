"""Search of receptive fields by gradient, over whole populations, for any model.

    problem = search.Problem(init, loss)                    pure functions of your parameters
    starts = search.grid(sigma=[0.5, 2.0], seed=[0, 1, 2])  what candidates start from
    result = search.run(key, problem, starts, batches, steps=500)
    fixed = search.enumerate(key, problem, starts, batches, values=[0.5, 1.0, 2.0], steps=500)

`result` holds plain arrays: covariances and losses over time, scores, receptive fields, seconds.
`python -m rfjax.search --config=configs/search.py --workdir=DIR` runs both on digit scenes.
"""

from rfjax.search.adapter import segmentation as segmentation
from rfjax.search.driver import run as run
from rfjax.search.engine import layout as layout
from rfjax.search.enumeration import enumerate as enumerate
from rfjax.search.halving import Halving as Halving
from rfjax.search.optimizers import sgd as sgd
from rfjax.search.population import Population as Population
from rfjax.search.population import concatenate as concatenate
from rfjax.search.population import grid as grid
from rfjax.search.population import population as population
from rfjax.search.problem import Problem as Problem
from rfjax.search.result import Result as Result
from rfjax.search.result import load as load
