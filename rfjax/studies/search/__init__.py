"""The study of search against enumeration: `rfjax.search` on the networks and data of the library.

    python -m rfjax.search --config=configs/search.py --workdir=runs/search

config    the keys of a study, and their checks
adapter   the network, data and scores of a training config as a `rfjax.search.Problem`
study     the searches and enumerations of a study, resumed where they were stopped
report    summary, tables and pictures
"""
