"""What differs between two runs, and how that is told."""

import pytest
from ml_collections import ConfigDict

from rfjax import _runs


def test_settings_are_compared_whatever_they_were_kept_in():
    old = {"a": {"b": [1, [2, 3]]}, "gone": 1, "free": 0}
    new = ConfigDict({"a": {"b": (1, (2, 3))}, "more": 2, "free": 1})
    found = _runs.differences(old, new, free=["free"])
    assert list(map(str, found)) == ["gone: 1 -> None", "more: None -> 2"]


def test_a_refusal_is_one_line_however_long_the_values_are():
    (found,) = _runs.differences({"sigmas": list(range(99))}, {"sigmas": 1})
    with pytest.raises(KeyError) as caught:
        _runs.refuse("the run in W", [found], KeyError, instead="go away", free="steps")
    (message,) = caught.value.args
    assert message.startswith("the run in W was started with other settings (old -> new): sigmas: ")
    assert message.endswith(
        "… -> 1. Take these back, or go away. Free to change when resuming: steps."
    )
    assert len(message) < 250
    _runs.refuse("the run in W", [], KeyError)


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_damaged_file_is_told(text, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(KeyError, match=r"config.json is damaged \(.*\); delete it"):
        _runs.read(path, KeyError, "delete it")
