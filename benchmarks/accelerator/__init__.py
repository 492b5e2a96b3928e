"""Everything that is measured on an accelerator, in one call of at most eight minutes.

    python -m benchmarks accelerator --output=runs/accelerator
    python -m benchmarks accelerator --small      the same at small sizes, for a CPU
    python -m benchmarks accelerator --choose=runs/accelerator/accelerator.json

    program      the parts, their budgets of time, and what is written when one ends or fails
    correctness  values and gradients on the device against float64 on the host
    operations   filtering and sampling at full size against the limits of the card
    networks     training steps, candidates of a search
    resuming     a run that is killed and goes on
    cards        the limits of cards
    model        how long every form of a filter, and of reads, should take there
    choosing     the engine's table of forms, made of what was measured or of the model
    page         the files that are written

It needs JAX, Flax, optax and orbax alone. PyTorch takes part where it is installed. A second call
is shorter where the environment's JAX_COMPILATION_CACHE_DIR names a folder.
"""
