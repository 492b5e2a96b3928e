"""Search of receptive fields by gradient, over whole populations, for any model.

    problem = search.Problem(init, loss)                    pure functions of your parameters
    starts = search.grid(sigma=[0.5, 2.0], seed=[0, 1, 2])  what candidates start from
    result = search.run(key, problem, starts, batches, steps=500)
    fixed = search.enumerate(key, problem, starts, batches, values=[0.5, 1.0, 2.0], steps=500)

`result` holds plain arrays: covariances and losses over time, scores, receptive fields, seconds.
`python -m rfjax.search --config=configs/search.py --workdir=DIR` runs both on digit scenes.
"""

from rfjax import _extras, _lazy

if fault := _extras.missing(__name__, "optax"):
    raise fault

__all__ = _lazy.install(  # pyright: ignore[reportUnsupportedDunderAll]  its names are lazy
    __name__,
    {
        "driver": ("run",),
        "engine": ("layout",),
        "enumeration": ("enumerate",),
        "halving": ("Halving",),
        "optimizers": ("sgd",),
        "population": (
            "Population",
            "concatenate",
            "grid",
            "population",
        ),
        "problem": ("Problem",),
        "result": (
            "Result",
            "load",
        ),
        ".studies.search.adapter": ("segmentation",),  # networks and data of the library
    },
)
