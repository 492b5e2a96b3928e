"""Studies of the papers, by the names of their tables and figures.

python -m rfjax.studies blurring --table=4 --data=digit_scenes --seeds=3 --workdir=studies
python -m rfjax.studies figures --workdir=studies/figures

tables    what each table compares, what the paper printed, and what it claims
scales    how the networks and the training of a table fit two cores, one GPU, or the paper
runs      the training runs of a table: planned, chained, resumed
report    filled tables with the spread over seeds, verdicts on the claims, pictures
figures   the figures
search    search of receptive fields against enumeration: python -m rfjax.search
"""

from rfjax import _extras

if fault := _extras.missing(__name__, "flax", "matplotlib", "ml_collections", "optax"):
    raise fault
