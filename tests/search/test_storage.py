"""What a disk or another search does to a search's files."""

import shutil
import threading

import numpy as np
import pytest

from rfjax import search
from rfjax._lock import InUse, held
from rfjax.search.storage import Storage
from rfjax.studies.search import study
from rfjax.training import CheckpointError
from tests.search.problems import assert_same, run
from tests.training.damage import DAMAGES, files

TWO = search.grid(sigma=[0.5, 1.0], seed=[0])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished search and its checkpoints, of steps 5 and 8."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(TWO, steps=8, checkpoints=folder, checkpoint_every=5)


def test_a_flipped_bit_in_any_file_is_found(whole, tmp_path, capsys):
    folder, _ = whole
    for number, name in enumerate(files(folder / "8")):
        copy = shutil.copytree(folder, tmp_path / str(number))
        DAMAGES["flip"](copy / "8" / name)
        with Storage(copy) as saved:
            assert saved.step == 5
        (line,) = capsys.readouterr().err.splitlines()
        assert "step 8 (" in line and "the newest sound one is that of step 5" in line


def test_a_damaged_search_goes_on_from_the_step_before(whole, tmp_path, capsys):
    folder, expected = whole
    copy = shutil.copytree(folder, tmp_path / "copy")
    DAMAGES["truncate"](copy / "8" / "arrays" / "manifest.ocdbt")
    assert_same(run(TWO, steps=8, checkpoints=copy, checkpoint_every=5), expected)
    for step in ("5", "8"):
        DAMAGES["zero"](copy / step / "meta" / "metadata")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is sound: step 5"):
        run(TWO, steps=8, checkpoints=copy, checkpoint_every=5)


def test_two_searches_in_one_directory(tmp_path):
    with held(tmp_path):
        caught = []

        def other():
            with pytest.raises(InUse, match="is in use by process"):
                run(TWO, steps=2, checkpoints=tmp_path)
            caught.append(True)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert caught


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_is_made_again(damage, whole, tmp_path):
    said = []
    path = tmp_path / "search.npz"
    whole[1].save(path)
    assert np.array_equal(study._known(path, said.append).losses, whole[1].losses)
    DAMAGES[damage](path)
    assert study._known(path, said.append) is None
    assert len(said) == (damage != "delete")
