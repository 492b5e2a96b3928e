"""Where what can be made again is kept between runs: a folder of the user."""

import os
from pathlib import Path


def user_cache(name: str) -> Path:
    """The folder `name` for files of this package, which need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rfjax" / name
