"""Equal programs are compiled once for all tests of this directory."""

from tests.training.conftest import cache_dir, compilation_cache, data_dir

__all__ = ["cache_dir", "compilation_cache", "data_dir"]
