"""Everything that is measured on an accelerator, in one call of at most eight minutes.

    python -m benchmarks accelerator --output=runs/accelerator
    python -m benchmarks accelerator --small      the same at small sizes, for a CPU

    program      the parts, their budgets of time, and what is written when one ends or fails
    correctness  values and gradients on the device against float64 on the host
    operations   filtering and sampling at full size against the limits of the card
    networks     training steps, candidates of a search
    resuming     a run that is killed and goes on
    cards        the limits of cards
    model        how long every form of a filter should take there
    page         the files that are written

It needs JAX, Flax, optax, orbax, chex, Pillow, pytest, SciPy and ml_collections, and neither
tensorflow-datasets, nor grain, nor OpenCV. PyTorch takes part where it is installed.
"""
