"""Tasks: what a network learns, and how one sees whether it has learned it.

    segmentation     a class at every pixel of an image
    classification   a class for an image
    guided           classes at every pixel, of which marks in other images tell

A task turns examples of a data set into the arrays that a network reads, builds the network, and
holds the loss, the scores and the figures; see `rfjax.tasks.task.Task`. Training, evaluation,
prediction and studies ask it, and know nothing else of what is learned. `register` makes a task of
one's own known to all of them.
"""

from rfjax import _lazy

__all__ = _lazy.install(
    __name__,
    {
        "classification": ("Classification",),
        "guided": ("Guided",),
        "inference": (),
        "losses": (),
        "metrics": (),
        "registry": ("create", "names", "register"),
        "segmentation": ("Segmentation",),
        "several": ("Segmentations",),
        "task": ("Task",),
    },
)
