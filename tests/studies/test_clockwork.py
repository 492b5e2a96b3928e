"""The study of schedules: what is measured of a network with known outputs, and its tables."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import clockwork
from rfjax.data import Dataset, Normalization
from rfjax.studies.clockwork import measuring, report, tables
from rfjax.studies.clockwork.schedules import CLIPS, HEADS, Way, sweep
from rfjax.tasks.video import Stream

SIZE = 12


class _Moving:
    """Two clips of four frames: a bright square that moves, fast in the second clip."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        left = (index % 4) * (1 + index // 4)
        label = np.zeros((SIZE, SIZE), np.uint8)
        label[3:8, left : left + 4] = 1
        image = np.repeat(200 * label[..., None], 3, -1)
        return {"image": image, "label": label, "id": f"{index // 4}/{index % 4}"}

    def clip(self, index):
        return index // 4


def stages(model):
    """What is bright is class 1; the deep stage alone sees it."""
    bright, even = jnp.array([[[[0.0, 1.0]]]]), jnp.array([[[[0.0, 0.5]]]])
    score = lambda variables, maps: {"score": maps["images"][..., :1] * bright}
    deep = lambda variables, maps: {"deep": maps["score"] - even}
    return score, deep, lambda variables, maps: maps["deep"]


class Made(measuring.Place):
    """A place whose networks are these."""

    def stream(self, way):
        return Stream(stages(None), None, Normalization((0,) * 3, (1,) * 3), way.schedule)

    def dataset(self, split):
        return Dataset("moving", split, _Moving(), 2, ("ground", "square"))


@pytest.fixture
def places(tmp_path):
    heads = dict.fromkeys(("fcn_8s", "fcn_pool3"), tmp_path)
    return [Made(tmp_path / f"seed{seed}", heads, stills=2) for seed in (0, 1)]


def test_streams_restart_their_clocks():
    stream = Made(None, {}).stream(Way("fcn_8s", "alternating"))
    frames = [_Moving()[index]["image"] for index in range(3)]
    seen = [stream(frame) for frame in frames]
    assert [bool(each.fired[1]) for each in seen] == [True, False, True]
    np.testing.assert_array_equal(seen[1].classes, seen[0].classes)
    np.testing.assert_array_equal(seen[2].classes, _Moving()[2]["label"])
    stream.restart()
    assert stream(frames[1]).fired.all()


def test_confusions_are_those_of_the_frames_that_count(places):
    """The oracle is right everywhere; a skipped frame has the labels of the one before."""
    oracle = measuring.scored(places[0], Way("fcn_8s", "oracle"), "video")
    assert measuring.measures(oracle)["mean IU"] == 100 and oracle["frames"] == 8
    assert np.sum(oracle["confusion"]) == 4 * SIZE**2  # two frames of each clip
    skip = measuring.scored(places[0], Way("fcn_8s", "skip"), "video")
    labels = [_Moving()[index]["label"] for index in (2, 3, 6, 7)]
    shown = [_Moving()[index]["label"] for index in (2, 2, 6, 6)]
    expected = np.zeros((2, 2), int)
    np.add.at(expected, (np.ravel(labels), np.ravel(shown)), 1)
    np.testing.assert_array_equal(skip["confusion"], expected)
    assert np.sum(skip["boundary"]) < np.sum(skip["confusion"]) and skip["ran"] == [0.5] * 3


def test_what_was_measured_is_kept(places):
    place = places[0]
    first = measuring.scored(place, Way("fcn_8s", "skip"), "slow")
    (path,) = place.folder.iterdir()
    path.write_text(json.dumps({**first, "frames": -1}))
    assert measuring.scored(place, Way("fcn_8s", "skip"), "slow")["frames"] == -1


def test_changes_from_frame_to_frame(places):
    labels = [_Moving()[index]["label"] for index in range(8)]
    pairs = [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7)]
    moved = [np.mean(labels[a] != labels[b]) for a, b in pairs]
    found = measuring.changes(places[0], "fcn_8s")
    assert found["pairs"] == 6
    np.testing.assert_allclose([found["mean"], found["deviation"]], [np.mean(moved), np.std(moved)])
    pixels = [clockwork.difference(*(_Moving()[i]["image"] * 1.0 for i in p[::-1])) for p in pairs]
    found = measuring.changes(places[0], "pixels")["mean"]
    np.testing.assert_allclose(found, np.mean(pixels), rtol=1e-6)


def test_a_table_with_its_verdicts(places, tmp_path):
    table = tables.Table(
        "two schedules",
        {"skip": Way("fcn_8s", "skip"), "oracle": Way("fcn_8s", "oracle"), "no": Way("x", "skip")},
        ("video",),
        claims=tables._claims(("video",), ("skip", "oracle"), ("oracle", "skip"), ("no", "skip")),
        paper={("oracle", "video"): 65.9},
    )
    filled = report.Filled("T", table, places, data="moving")
    assert [claim["verdict"] for claim in filled.claims()] == ["holds", "fails"]
    for path in filled.write(tmp_path):
        text = path.read_text()
        assert "oracle" in text and "65.9" in text and "skip < oracle, video" in text
    seconds = [filled.seconds(row) for row in filled.ways]
    assert np.shape(seconds) == (2, 2) and np.all(np.array(seconds) > 0)


def test_the_picture_of_the_sweep(places):
    table = tables.Table("sweep", tables.TABLES["sweep"].ways, ("video",))
    rows = {row: way for row, way in table.ways.items() if "%" not in row or row == "adaptive 50 %"}
    filled = report.Filled("sweep", table, places, data="moving")
    filled.ways = {
        row: Way("fcn_8s", way.schedule.replace("50%", "0.1")) for row, way in rows.items()
    }
    (axes,) = filled.figure().axes
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["adaptive", "skip", "alternating", "oracle"]


def test_the_table_of_changes(places, tmp_path):
    filled = report.Changes(places, data="moving")
    markdown, _ = filled.write(tmp_path)
    assert "| pixels |" in markdown.read_text() and "| pool3 |" in markdown.read_text()
    assert [claim["claim"] for claim in filled.claims()] == ["change of pool3 < pixels"]


def test_tables_name_what_there_is():
    """Every claim is of cells of its table, every row of a network, every column of clips."""
    for name, table in tables.TABLES.items():
        cells = {(row, clips) for row in table.ways for clips in table.clips}
        assert set(table.clips) <= set(CLIPS) and set(tables.heads(name)) <= set(HEADS)
        named = set()
        for claim in table.claims:
            look = lambda row, clips: named.add((row, clips)) or np.zeros(1)
            claim.lower(look, look), claim.higher(look, look)
        assert named <= cells and set(table.paper or {}) <= cells
    assert len({way.name for way in sweep().values()}) == len(sweep()) == 15
