"""Small digit scenes, drawn once for all tests of this folder."""

import pytest

import rfjax.data

SMALL = {"train_scenes": 21, "val_scenes": 7}


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="session")
def scenes(data_dir):
    """21 training scenes."""
    return rfjax.data.load("digit_scenes", "train", data_dir=data_dir, **SMALL)


@pytest.fixture(scope="session")
def val_scenes(data_dir):
    """7 validation scenes."""
    return rfjax.data.load("digit_scenes", "val", data_dir=data_dir, **SMALL)
