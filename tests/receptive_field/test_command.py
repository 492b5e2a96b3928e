"""The command line: tables, the picture, errors."""

import pytest
from PIL import Image

from rfjax.receptive_field import __main__ as command


def test_a_published_network_is_listed(capsys):
    assert command.main(["--model=fcn_vgg16"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["layer", "size", "stride", "offset"]
    assert ["pool5", "212", "32", "-83.5"] in rows
    assert rows[-1] == ["score", "404", "32", "12.5"]


def test_a_network_is_listed_and_drawn(tmp_path, capsys):
    output = tmp_path / "field.png"
    small = ["--backbone_option", "width=2", "--backbone_option", "depth=1"]
    options = ["--model=resnet_tiny", "--head=conv3", *small, "--size=33", "--draws=1"]
    assert command.main([*options, f"--output={output}"]) == 0
    out = capsys.readouterr().out
    rows = [line.split()[:3] for line in out.splitlines()]
    assert ["head", "23", "4"] in rows
    assert "95 % of its mass within" in out
    with Image.open(output) as picture:
        assert min(picture.size) > 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model=vgg"], "model is one of resnet_18"),
        (["--model=resnet_tiny", "--head_option", "sigma"], "want NAME=VALUE, as sigma=2"),
        (["--workdir=nowhere"], "nowhere is not a directory"),
        (["--model=resnet_tiny", "--head=no"], "head is one of score"),
    ],
)
def test_errors_say_what_is_wrong(options, message, capsys):
    assert command.main(options) == 1
    assert message in capsys.readouterr().err


def test_something_has_to_be_asked_for(capsys):
    with pytest.raises(SystemExit):
        command.main([])
    assert "--model" in capsys.readouterr().err
