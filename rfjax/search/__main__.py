"""Runs the study of search, `rfjax.studies.search`, by the name that users know.

python -m rfjax.search --config=configs/search.py --workdir=runs/search
"""

import runpy

if __name__ == "__main__":
    runpy.run_module("rfjax.studies.search", run_name="__main__", alter_sys=True)
