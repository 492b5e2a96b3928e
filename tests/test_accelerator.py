"""The program for accelerators: its budgets, its page, and all of it at small sizes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.accelerator import (
    cards,
    correctness,
    model,
    operations,
    page,
    program,
    resuming,
    scale,
)
from benchmarks.report import Row

ROOT = Path(__file__).parent.parent
H100, H200 = cards.CARDS.values()


def rows(*names):
    return lambda: iter([Row("suite", name, "what", 1.0) for name in names])


def failing():
    yield Row("suite", "before", "what", 1.0)
    raise RuntimeError("of this\nand that")


def test_a_part_is_shortened_and_says_so(monkeypatch, tmp_path):
    seconds = iter([0.0, 0.0, 4.0, 4.0, 9.0, 9.0])
    monkeypatch.setattr(program.time, "perf_counter", lambda: next(seconds))
    part = program.Part("part", 12.0, [program.Case(name, rows(name)) for name in "abc"])
    part.run(12.0, lambda part: None)
    assert [row.case for row in part.rows] == ["a", "b"]
    assert part.state == "shortened" and part.left_out == ["c"]
    assert "the time did not suffice for c" in page.outcome(part)


def test_a_case_that_fails_is_one_line_and_the_others_go_on(tmp_path, capsys):
    part = program.Part("part", 9.0, [program.Case("a", failing), program.Case("b", rows("b"))])
    later = program.Part("later", 9.0, [program.Case("c", rows("c"))])
    assert program.run([part, later], tmp_path) == 1
    assert "failed: a: RuntimeError: of this\n" in capsys.readouterr().out
    written = json.loads((tmp_path / "accelerator.json").read_text())["parts"]
    assert [[row["case"] for row in one["rows"]] for one in written] == [["before", "b"], ["c"]]
    text = (tmp_path / "accelerator.md").read_text()
    assert "failed: a: RuntimeError: of this" in text and "are not known" in text


def test_errors_of_the_command_line(capsys):
    with pytest.raises(SystemExit):
        program.main(["--seconds=0"])
    assert "--seconds must be above 0; got 0" in capsys.readouterr().err


def test_cards_are_known_by_their_kind():
    assert cards.find("NVIDIA H100 80GB HBM3") is H100 and cards.find("NVIDIA H200") is H200
    assert cards.find("NVIDIA H100 PCIe") is None and cards.find("cpu") is None
    assert H100.seconds(bytes=3.35e12, flops=0) == 1.0


def test_no_prediction_of_reads_is_below_the_limit():
    for shape, features in model.READ_SIZES:
        for gradient in (False, True):
            limit = model.least_reads(shape, features, H200, gradient=gradient)
            for form in model.READ_FORMS:
                assert model.predict_reads(form, shape, features, H200, gradient=gradient) > limit


def test_no_prediction_is_below_the_limit():
    for shape in model.SHAPES:
        for sigma in model.SIGMAS:
            for form in model.FORMS:
                found = model.predict(form, shape, sigma, H100)
                assert found is None or found > 2 * model.least(shape, H100)


def test_the_model_knows_that_matrices_cost_by_the_axis():
    large = (1, 1024, 2048, 64)
    # 2 E L operations at 70 % of 67 TFLOP/s
    wanted = sum(2 * 2**27 * length / (0.7 * 67e9) for length in large[1:3])
    assert model.predict("toeplitz", large, 1.0, H100) == pytest.approx(wanted, rel=0.01)
    assert model.best(large, 64.0, H200, ("toeplitz", "shift_add")) == "toeplitz"
    assert model.best(large, 1.0, H200) != "toeplitz"


def test_the_device_agrees_with_float64():
    for one in correctness.cases(small=True)[:2]:  # of which one has a sigma on a whole number
        (row,) = one.run()
        assert row.reached


def test_reduced_products_are_told_apart(monkeypatch):
    monkeypatch.setattr(correctness, "BOUND", 1e-12)
    found = list(correctness.cases(small=True)[0].run())
    assert [row.what for row in found][1] == "all products in full precision"


def test_operations_stand_beside_limit_and_prediction(monkeypatch):
    monkeypatch.setattr(operations, "_card", lambda: H100)
    monkeypatch.setattr(operations, "ROUNDS", 1)
    found = list(operations.gaussian((1, 12, 12, 2), (1.0, 2.0), False))
    against = {row.against for row in found}
    assert {row.case for row in found} >= {"1x12x12x2 sigma 1", "1x12x12x2 sigma 2"}
    assert against == {"limit of the H100", "the model's prediction", ""}
    assert list(operations.memory((1, 12, 12, 2)))


def test_scenes_are_the_same_whenever_they_are_asked_for():
    one, other = resuming.scenes(3), resuming.scenes(3)
    assert all((one[name] == other[name]).all() for name in one)
    assert set(one["label"].flat) > {0} and one["label"].max() < resuming.CLASSES


def test_bytes_that_devices_add_up():
    text = """%5 = "stablehlo.all_reduce"(%4, %3) <{x = 1}> ({
      stablehlo.return %6 : tensor<f32>
    }) : (tensor<3x4xf32>, tensor<2xbf16>) -> (tensor<3x4xf32>, tensor<2xbf16>)"""
    assert scale.added(text) == [3 * 4 * 4 + 2 * 2]
    assert scale.seconds_to_add(1e9, 64) > 10 * scale.seconds_to_add(1e9, 8) / 2


def test_a_step_sends_its_gradients_once():
    bytes, _, parameters = scale.communicated("resnet_tiny", size=32)
    # Statistics and measures are little beside gradients.
    assert 4 * parameters <= bytes < 1.2 * 4 * parameters


def test_a_call_ends_in_time_where_a_case_hangs(tmp_path):
    """In a process of its own, which ends."""
    code = """
import sys, time
from pathlib import Path
from benchmarks.accelerator import program
from benchmarks.report import Row

def hanging():
    yield Row("suite", "before", "what", 1.0)
    time.sleep(600)

todo = [program.Part("part", 9.0, [program.Case("a", hanging)])]
with program._ended_after(0.5, todo, Path(sys.argv[1])):
    program.run(todo, Path(sys.argv[1]))
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, timeout=60)
    assert done.returncode == 1
    (part,) = json.loads((tmp_path / "accelerator.json").read_text())["parts"]
    assert [row["case"] for row in part["rows"]] == ["before"]
    assert part["state"] == "given up" and list(part["failed"]) == ["a"]


def test_budgets_are_within_the_time():
    parts = program.parts(small=False, seconds=program.PARTS * program.TOTAL)
    assert sum(part.budget for part in parts) < program.TOTAL <= 8 * 60


# A machine has no modules but those of these packages: JAX, Flax, optax and orbax with what they
# bring.
ALONE = """
import sys
from importlib.metadata import packages_distributions, requires
from packaging.requirements import Requirement

WANTED, todo = set(), ["jax", "jaxlib", "flax", "optax", "orbax-checkpoint"]
while todo:
    name = todo.pop().lower().replace("_", "-")
    if name not in WANTED:
        WANTED.add(name)
        wanted = map(Requirement, requires(name) or ())
        todo += [r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
WANTED.add("rfjax")
OWNERS = packages_distributions()

class Alone:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        owners = {owner.lower().replace("_", "-") for owner in OWNERS.get(name.split(".")[0], ())}
        if not owners or owners & WANTED:
            return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Alone, sys.meta_path)
"""


def alone(code, *arguments, **options):
    """Runs code where nothing but JAX, Flax, optax and orbax is installed."""
    command = [sys.executable, "-c", f"{ALONE}\n{code}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)


def test_parts_need_nothing_but_jax_flax_optax_and_orbax():
    done = alone("""
import importlib.util
for name in ("pytest", "ml_collections", "cv2", "grain", "tensorflow_datasets", "chex", "PIL"):
    assert importlib.util.find_spec(name) is None, name
from benchmarks.accelerator import choosing, program, resuming, scale
from rfjax.search import driver
from rfjax.training import checkpoints, state, steps
from rfjax import tasks
tasks.create("segmentation", {"num_classes": 3})
for small in (True, False):
    assert all(part.cases for part in program.parts(small=small, seconds=9.0))
""")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_whole_program_at_small_sizes(tmp_path):
    code = "from benchmarks.accelerator import program; sys.exit(program.main(sys.argv[1:]))"
    done = alone(code, "--small", f"--output={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "accelerator.json").read_text())
    assert [part["state"] for part in written["parts"]] == ["complete"] * 5
    assert all(part["rows"] for part in written["parts"])
