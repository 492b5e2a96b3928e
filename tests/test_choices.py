"""The table of forms that a program writes: it follows the times, and says where they come from."""

import json
import runpy

import jax.numpy as jnp
import pytest

from benchmarks.accelerator import choosing, program
from rfjax._engine import choices, plan
from rfjax._engine.plan import Reading
from rfjax.filtering import plan as planned

MAP, OUTPUTS = (1, 256, 512, 8), (1, 256, 512)
# Milliseconds, forward with backward, at sigma 1, 4 and 16.
TIMES = {
    "toeplitz": (3.0, 3.0, 3.0),
    "shift_add": (2.0, 5.0, 9.0),
    "banded": (4.0, 2.8, 1.0),
    "pallas": (1.0, 2.0, 8.0),
}


def row(ms, **of):
    return {"ours": ms, "of": {"dtype": "float32", "gradient": True, "shape": MAP} | of}


def result(folder, device, times=TIMES, reads=(2.0, 1.0)):
    """A made-up accelerator.json."""
    rows = [
        row(ms, form=form, sigma=sigma)
        for form, all_ms in times.items()
        for sigma, ms in zip((1.0, 4.0, 16.0), all_ms, strict=True)
    ]
    rows += [row(0.1, form="auto", sigma=1.0), {"ours": 0.1, "of": None}]
    rows.append(row(0.1, form="banded", sigma=1.0, gradient=False))
    for form, ms in zip(("gather", "pallas"), reads, strict=True):
        rows += [
            row(ms, form=form, features=8),
            row(1 / ms, form=form, features=8, dtype="bfloat16"),
        ]
    path = folder / "accelerator.json"
    path.write_text(json.dumps({"machine": {"device": device}, "parts": [{"rows": rows}]}))
    return path


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """Makes the table of a result what `plan` reads, and returns its rows."""

    def by(*arguments, **options):
        path = tmp_path / "choices.py"
        choosing.choose(str(result(tmp_path, *arguments, **options)), path)
        table = runpy.run_path(str(path))
        for name in ("ROWS", "BLURS", "READS"):
            monkeypatch.setattr(choices, name, table[name])
        return table["ROWS"]

    return by


def algorithms(sigma, platform="gpu"):
    return planned(MAP, jnp.log(jnp.array([sigma])), platform=platform).algorithms


def test_the_choice_follows_the_times(chosen):
    rows = chosen("gpu: Card 1")
    assert {r.by for r in rows} == {"measured: Card 1"}  # nothing of the model is left
    wanted = {1.0: "pallas", 4.0: "pallas", 5.0: "banded", 16.0: "banded", 64.0: "toeplitz"}
    assert {sigma: algorithms(sigma)[1] for sigma in wanted} == wanted
    sizes = OUTPUTS, MAP, (9, 8, 8)
    assert Reading().form(*sizes, jnp.float32, "gpu") == "pallas"
    assert Reading().form(*sizes, jnp.bfloat16, "gpu") == "gather"
    assert Reading("gather").form(*sizes, jnp.float32, "gpu") == "gather"


def test_a_switch_must_be_worth_it(chosen):
    chosen("gpu: Card 1", times={"toeplitz": (1.0, 1.0, 1.0), "banded": (0.85, 0.85, 0.85)})
    assert algorithms(1.0) == ("toeplitz",) * 2


def test_platforms_have_rows_of_their_own(chosen):
    rows = chosen("tpu: TPU v5")
    # Kernels are not those of a TPU; what the model says of GPUs stays.
    assert {r.platform for r in rows} == {"gpu", "tpu"}
    assert algorithms(1.0, "tpu") == ("shift_add",) * 2
    assert Reading().form(OUTPUTS, MAP, (9, 8, 8), jnp.float32, "tpu") == "gather"
    assert algorithms(1.0, "cpu") == ("shift_add",) * 2


def test_a_cpu_fills_no_table(tmp_path, capsys):
    with pytest.raises(SystemExit):
        program.main([f"--choose={result(tmp_path, 'cpu: cpu')}"])
    assert "must be of one of gpu, tpu; got cpu" in capsys.readouterr().err


def test_the_table_of_the_project_is_what_the_program_writes(tmp_path):
    """By the model, as long as nothing was measured; each row says which of the two."""
    path = tmp_path / "choices.py"
    choosing.choose("model", path)
    with open(choices.__file__) as own:
        assert path.read_text() == own.read() or any("measured" in r.by for r in choices.ROWS)
    assert all(r.by.split(":")[0] in ("model", "measured") for r in choices.ROWS)


def test_the_nearest_size_counts_by_factors():
    rows = tuple(
        choices.Choice("blur", "gpu", "float32", sizes, (), str(sizes))
        for sizes in ((100, 10), (10_000, 10), (10_000, 1000))
    )
    assert plan.nearest(rows, "gpu", "float32", (2000, 10)).by == "(10000, 10)"
    assert plan.nearest(rows, "gpu", "bfloat16", (2000, 900)).by == "(10000, 1000)"
    assert plan.nearest(rows, "tpu", "float32", (2000, 900)) is None
