"""Files of weights: formats, wrappers, prefixes, what is not run, and damaged ones."""

import io
import pickle
import re
import struct
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from rfjax.models import convert, matching, torch_import, weight_files
from rfjax.training import config as configs
from rfjax.training import weights

NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)


class Global:
    """What a pickle imports, without its being there."""

    def __init__(self, module, name):
        self.line = f"c{module}\n{name}\n".encode()

    def __call__(self):
        raise AssertionError("never run")


class Tensor:
    """A tensor of a storage of its own, as a pickle of PyTorch has it."""

    def __init__(self, array, kind="FloatStorage", strides=None, view=()):
        self.array, self.kind, self.view = np.array(array, order="C"), kind, view
        self.shape = np.shape(array)
        steps = [step // self.array.itemsize for step in self.array.strides]
        self.strides = tuple(steps) if strides is None else strides

    def __reduce__(self):
        build = Global("torch._utils", "_rebuild_tensor_v2")
        return build, (self.storage, 0, self.shape, self.strides, False, OrderedDict())

    @property
    def storage(self):
        storage = Storage()
        storage.tensor = self
        return storage


class Storage:
    pass


class Pickler(pickle._Pickler):
    """Writes marks as imports, and numbers each storage."""

    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.storages = []

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(obj.line)
        else:
            super().save(obj, save_persistent_id)

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        self.storages.append(obj.tensor.array)
        kind, count = Global("torch", obj.tensor.kind), obj.tensor.array.size
        return ("storage", kind, str(len(self.storages) - 1), "cpu", count, *obj.tensor.view)


def zipped(value):
    file, out = io.BytesIO(), io.BytesIO()
    pickler = Pickler(file)
    pickler.dump(value)
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", file.getvalue())
        for key, array in enumerate(pickler.storages):
            archive.writestr(f"archive/data/{key}", array.tobytes())
    return out.getvalue()


def older(value):
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little": True})]
    file = io.BytesIO()
    pickler = Pickler(file)
    pickler.dump(value)
    parts += [file.getvalue(), pickle.dumps([str(k) for k in range(len(pickler.storages))], 2)]
    parts += [struct.pack("<q", a.size) + a.tobytes() for a in pickler.storages]
    return b"".join(parts)


def npz(value):
    file = io.BytesIO()
    np.savez(file, **{name: tensor.array for name, tensor in value.items()})
    return file.getvalue()


def tensors(value):
    return safetensors.numpy.save({name: tensor.array for name, tensor in value.items()})


def read(path, content):
    path.write_bytes(content)
    return weight_files.read(path)


@pytest.mark.parametrize("write", [zipped, older, npz, tensors])
def test_formats(tmp_path, write):
    """The name of the file tells nothing."""
    halves = Tensor(NUMBERS.astype(np.float16), "HalfStorage")
    found = read(tmp_path / "a", write({"a.weight": Tensor(NUMBERS), "b": halves}))
    assert sorted(found.arrays) == ["a.weight", "b"] and not found.notes
    np.testing.assert_array_equal(found.arrays["a.weight"], NUMBERS)
    np.testing.assert_array_equal(found.arrays["b"], NUMBERS)
    assert found.arrays["b"].dtype == np.float16


@pytest.mark.parametrize("write", [zipped, older])
def test_strides_types_and_parameters(tmp_path, write):
    turned = Tensor(NUMBERS, strides=(1, 3))
    turned.shape = (3, 2)
    brain = Tensor(NUMBERS.astype(ml_dtypes.bfloat16), "BFloat16Storage")
    found = read(tmp_path / "a.pth", write({"t": turned, "b": brain, "n": Tensor(np.float32(3))}))
    np.testing.assert_array_equal(found.arrays["t"], NUMBERS.reshape(-1)[[[0, 3], [1, 4], [2, 5]]])
    assert found.arrays["b"].dtype == ml_dtypes.bfloat16 and found.arrays["n"] == 3


def test_bfloat16_of_safetensors(tmp_path):
    header = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    data = np.array([1.5, -2], ml_dtypes.bfloat16).tobytes()
    found = read(tmp_path / "a.safetensors", struct.pack("<Q", len(header)) + header + data)
    assert found.arrays["a"].tolist() == [1.5, -2]


def test_nothing_that_a_file_names_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return Global("os", "system"), (f"touch {tmp_path}/run",)

    content = {"args": Evil(), "best": Evil(), "state_dict": {"a": Tensor(NUMBERS), "b": Evil()}}
    found = read(tmp_path / "a.pth", zipped(content))
    assert list(found.arrays) == ["a"] and not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state", "ema", "state_dict_ema"])
def test_wrappers(tmp_path, wrapper):
    content = {"epoch": 3, wrapper: {"a": Tensor(NUMBERS)}, "optimizer": {"m": Tensor(NUMBERS)}}
    found = read(tmp_path / "a.pth", zipped(content))
    assert list(found.arrays) == ["a"] and found.notes == (f"read: the entry {wrapper!r}",)


def test_averaged_weights_come_first(tmp_path):
    content = {"model": {"a": Tensor(NUMBERS)}, "model_ema": {"state_dict": {"b": Tensor(NUMBERS)}}}
    assert list(read(tmp_path / "a.pth", zipped(content)).arrays) == ["b"]


@pytest.mark.parametrize(
    ("names", "kept", "note"),
    [
        (("module.module.a.b", "module.module.c"), ["a.b", "c"], "taken off: 'module.module.'"),
        (
            ("_orig_mod.module.a", "_orig_mod.module.b"),
            ["a", "b"],
            "taken off: '_orig_mod.module.'",
        ),
        (("model.encoder.a",), ["a"], "taken off: 'model.encoder.'"),
        (("model.backbone.a",), ["backbone.a"], "taken off: 'model.'"),
        (("backbone.a", "decode_head.b"), ["a"], "read: backbone.* alone, without decode_head.*"),
        (("encoder.a", "decoder.b", "c"), ["a"], r"read: encoder.* alone, without c.*, decoder.*"),
        (("backbone.a", "classifier.0"), ["backbone.a", "classifier.0"], None),
        (("module.a", "b"), ["module.a", "b"], None),
    ],
)
def test_prefixes(names, kept, note):
    found, notes = weight_files.unprefixed(dict.fromkeys(names, 0))
    assert list(found) == kept
    assert set("".join(notes)) == set(note or "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no .npz, .safetensors, or file of PyTorch"),
        (b"what", "no .npz, .safetensors, or file of PyTorch"),
        (zipped({"a": 1, "b": "text"}), "holds no arrays by name"),
        (zipped(Tensor(NUMBERS)), "holds no arrays by name"),
        (zipped({"a": Tensor(NUMBERS, "QInt8Storage")}), "a kind that is not known"),
        (zipped({"a": Tensor(NUMBERS, strides=(30, 1))}), "reads beyond the 6 numbers"),
        (zipped({"a": Tensor(NUMBERS)})[:-60], "cannot be read as weights"),
        (older({"a": Tensor(NUMBERS)})[:-4], "cannot be read as weights"),
        (tensors({"a": Tensor(NUMBERS)})[:-4], "cannot be read as weights"),
    ],
)
def test_what_is_no_file_of_weights(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path / "a.pth", content)
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)


def test_files_that_pytorch_wrote(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "a": base[1:3, ::2].t(),
        "b": torch.nn.Parameter(base.bfloat16()),
        "n": torch.tensor(7),
    }
    for zips in (True, False):
        torch.save({"model": state}, tmp_path / "a.pth", _use_new_zipfile_serialization=zips)
        found = weight_files.read(tmp_path / "a.pth").arrays
        for name, tensor in state.items():
            np.testing.assert_array_equal(found[name].astype(float), tensor.detach().double())
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="save its state_dict"):
        weight_files.read(tmp_path / "a.pth")


# -- Which network they are of ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet():
    expected = torch_import.expected("resnet_18")
    return {name: np.zeros(shape, np.float32) for name, (_, shape) in expected.items()}


@pytest.fixture
def few(monkeypatch):
    """Two networks to choose from."""
    monkeypatch.setattr(matching.registry, "names", lambda: ("resnet_34", "resnet_18"))


def test_convert_shows_and_writes(tmp_path, resnet, few, capsys):
    given = {f"module.encoder.{name}": array for name, array in resnet.items()}
    np.savez(tmp_path / "in.npz", **given, **{"module.decoder.weight": np.ones(3)})
    assert convert.main([str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]) == 0
    told = capsys.readouterr().out
    assert "taken off: 'module.'" in told and "without decoder.*" in told
    assert "resnet_18: 100 of 100 arrays" in re.sub(r"\d+ of \d+", "100 of 100", told)
    assert "layer1.0.conv1.weight (64, 64, 3, 3) -> backbone/layer1_0/conv1/kernel" in told
    with np.load(tmp_path / "out.npz") as written:
        assert sorted(written.files) == sorted(resnet)


def test_convert_refuses(tmp_path, few, capsys):
    np.savez(tmp_path / "in.npz", a=np.ones(3))
    for arguments, message in (
        (["in.npz", "out.txt"], "a name that ends in .npz"),
        (["no.npz", "out.npz"], "no.npz"),
        (["in.npz", "out.npz"], "none of its 1 arrays fits a network here"),
        (["in.npz", "out.npz", "--model=resnet"], "--model"),
    ):
        names = [str(tmp_path / name) if "--" not in name else name for name in arguments]
        assert convert.main(names) == 1
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1
    assert not (tmp_path / "out.npz").exists()


def test_training_names_the_nearest_network(tmp_path, resnet, few):
    np.savez(tmp_path / "w.npz", **resnet)
    config = configs.base()
    config.model.name, config.model.weights = "resnet_34", str(tmp_path / "w.npz")
    with pytest.raises(
        configs.ConfigError, match=r"missing .*layer3\.\*.* they fit resnet_18 best"
    ):
        weights.load(config, {}, num_classes=3)
