"""The scenes of the small runs."""

from tests.training.conftest import data_dir

__all__ = ["data_dir"]
