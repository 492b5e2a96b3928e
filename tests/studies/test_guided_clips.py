"""Guided networks on clips in the folders of DAVIS: training from kept maps, and the answers."""

import numpy as np
import pytest
from PIL import Image

from rfjax.data.dataset import VOID
from rfjax.studies.guided import measuring, networks, video
from rfjax.studies.guided.tables import Asked, Question
from rfjax.training import config as configs
from rfjax.training import loop

SIDE, FRAMES, STEPS = 32, 4, 40


def write_clips(root):
    """A bright square that moves over noise, in three clips; the last one is for validation."""
    rng = np.random.default_rng(0)
    for clip in ("a", "b", "c"):
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / clip).mkdir(parents=True)
        for number in range(FRAMES):
            label = np.zeros((SIDE, SIDE), np.uint8)
            label[8:20, 4 + 3 * number : 16 + 3 * number] = 255
            image = rng.integers(0, 60, (SIDE, SIDE, 3)) + 0.7 * label[..., None]
            Image.fromarray(image.astype(np.uint8)).save(
                root / "JPEGImages" / clip / f"{number:05d}.jpg", quality=95
            )
            Image.fromarray(label).save(root / "Annotations" / clip / f"{number:05d}.png")


def trained(folder, fusion, kind):
    """A run from maps of the frames."""
    config = configs.base()
    config.steps = config.eval_every = config.checkpoint_every = STEPS
    config.batch_size = config.eval_batch_size = 8
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 0.05, 4
    config.data.name, config.data.dir = "episodes", str(folder / "clips")
    config.data.options.of, config.data.options.kind, config.data.options.folds = "davis", kind, 1
    config.data.options.train_episodes, config.data.options.val_episodes = 64, 8
    config.task.name, config.task.fusion = "guided", fusion
    config.trainable = "backbone/layer1_*, fusion/*, head/*"
    config.model.head, config.model.backbone_options.width = "score", 8
    config.data.cache.map, config.data.cache.dir = "conv1", str(folder / "maps")
    workdir = folder / fusion
    loop.train(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guided_clips")
    write_clips(folder / "clips")
    return folder


@pytest.fixture(scope="module")
def guided(folder):
    return trained(folder, "late_global", "video")


def test_frames_are_kept_once_for_all_runs(folder, guided):
    (kept,) = (folder / "maps" / "conv1" / "val").glob("*.npy")
    assert np.load(kept).shape[0] == FRAMES
    assert np.load(folder / "maps" / "conv1" / "train" / kept.name).shape[0] == 2 * FRAMES


def test_a_clip_is_segmented_by_its_first_frame(guided):
    clips = video.opened(guided)
    found = clips.answer(Question(kind="video"))
    assert 0.5 < found["positive_iu"] <= 1 and found["seconds"] > 0
    assert found["clip_iu"] == pytest.approx(found["positive_iu"])  # there is one clip
    frames, marks = clips._support(Question(kind="video", shots=2, points=3), clips.clips[0])
    assert frames == [0, 2]
    assert [[(m == k).sum() for k in (0, 1, VOID)] for m in marks] == [[3, 3, SIDE**2 - 6]] * 2
    more = clips.answer(Question(kind="video", shots=2))
    assert more["positive_iu"] != found["positive_iu"]


def test_frames_are_segmented_by_their_own_marks(guided, monkeypatch):
    clips = video.opened(guided)
    asked = []
    see = clips._marked
    monkeypatch.setattr(clips, "_marked", lambda *given: asked.append(given[0]) or see(*given))
    found = clips.answer(Question(kind="interactive", points=2))
    assert asked[1:] == [[index] for index in range(FRAMES)] and 0 <= found["positive_iu"] <= 1


def test_fine_tuning_learns_the_first_frame(folder):
    workdir = trained(folder, "foreground", "interactive")
    clips = video.opened(workdir)
    alone = clips.answer(Question(kind="video"))
    tuned = clips.answer(Question(kind="video", tuned=40))
    assert tuned["positive_iu"] != alone["positive_iu"] and tuned["seconds"] > alone["seconds"]
    asked = Asked(networks.ALONE, Question(kind="video"), "clip_iu")
    assert measuring.asked(workdir, asked) == pytest.approx(100 * alone["clip_iu"])
