"""The benchmark program: fair turns, honest verdicts, and that it computes what it times."""

import json

import pytest

from benchmarks import __main__ as program
from benchmarks import clockwork, deform, gaussian, guide, report, resample, search
from benchmarks.timing import Times, interleave


def row(ratio, aim, **facts):
    values = dict(suite="gaussian", case="a map", what="forward", ours=ratio, against="a peer")
    return report.Row(**values, theirs=1.0, ratio=ratio, spread=(ratio, ratio), aim=aim, **facts)


def test_functions_take_turns():
    calls = []
    times = interleave({n: lambda n=n: calls.append(n) for n in "ab"}, rounds=3, least=0.0)
    assert {name: len(time.rounds) for name, time in times.items()} == {"a": 3, "b": 3}
    turns = "".join(calls).replace("aa", "A").replace("bb", "B")
    assert turns.endswith("ABBAAB")  # who begins alternates


def test_ratios_are_those_of_each_round():
    ours, theirs = Times((1.0, 4.0, 2.0)), Times((2.0, 2.0, 2.0))
    assert ours.median == 2.0
    assert ours.ratio(theirs) == 1.0
    assert ours.ratio_spread(theirs) == (0.5, 2.0)


@pytest.mark.parametrize("ratio, status", [(0.5, 0), (0.7, 1)])
def test_check_fails_where_an_aim_is_missed(ratio, status, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gaussian, "run", lambda rounds: iter([row(0.3, None), row(ratio, 0.6)]))
    arguments = ["gaussian", "--rounds=1", f"--output={tmp_path}"]
    assert program.main([*arguments, "--check"]) == status
    assert program.main(arguments) == 0
    assert ("MISSES 0.6" in capsys.readouterr().out) == bool(status)
    written = json.loads((tmp_path / "benchmarks.json").read_text())
    assert [r["ratio"] for r in written["rows"]] == [0.3, ratio]
    table = (tmp_path / "benchmarks.md").read_text()
    assert ("0.6 **no**" if status else "0.6 yes") in table


def test_a_suite_that_does_not_exist():
    with pytest.raises(SystemExit) as stopped:
        program.main(["gauss"])
    assert stopped.value.code == 2


def test_gaussian_filtering_agrees_with_every_peer():
    rows = list(gaussian._against_peers((1, 12, 14, 2), 1.2, rounds=1))
    assert rows and all(r.error < 1e-6 for r in rows)
    wrong = gaussian._reference(gaussian._operands((1, 12, 14, 2))[0], 1.3)
    with pytest.raises(AssertionError, match="computes something else"):
        gaussian._agrees("a peer", wrong, gaussian._reference(gaussian._operands(
            (1, 12, 14, 2))[0], 1.2))  # fmt: skip


def test_full_covariances_agree_with_the_reference():
    rows = list(gaussian._full((1, 12, 14, 2), [1.0], rounds=1))
    assert all(r.error < 1e-6 for r in rows)


def test_deformation_and_resampling_run():
    assert list(deform._against_peers((1, 8, 8, 4), 4, (1.0, 1.0), rounds=1))
    assert list(resample.run(rounds=1, cases=(((1, 8, 8, 4), 4),), sigmas=(1.0,)))


def test_marks_in_kept_features_run():
    (row,) = guide.run(rounds=1, cases=(("resnet_tiny", {"width": 4}, "last", (64, 64)),))
    assert row.aim == guide.AIM and row.ours > 0


def test_mapped_networks_agree_with_the_loop():
    rows = list(search.run(rounds=1, candidates=2, size=8))
    errors = [row.error for row in rows if row.unit == "ms"]
    assert len(errors) == 3 and max(errors) < 1e-5


def test_schedules_are_measured_against_their_stages():
    rows = list(clockwork.run(rounds=1, name="vgg_tiny", size=(32, 48)))
    told = {row.what.split(":")[0]: float(row.what.split()[-1]) for row in rows[1:]}
    assert told.keys() >= {"oracle", "skip", "pipeline3", "adaptive"}
    assert (told["alternating"], told["pixels"]) == (0.885, 0.885)  # every second frame changes
    times = {f"stage {number}": Times((float(number),)) for number in range(1, 5)}
    assert clockwork.modelled("exponential", times, 1.0).rounds == (5.0 + 2 / 2 + 3 / 4,)
