"""A network in two halves, of which the second runs from the maps that the first has left."""

from flax import linen

from rfjax import models

AT = "layer1"


class Halves(linen.Module):
    """Scores by way of a map that may be kept between images, as those of a video."""

    whole: linen.Module

    def first(self, images):
        """The map at which the network is cut, by its name."""
        return {AT: self.whole.maps(images, until=AT)[AT]}

    def second(self, maps, size):
        """The scores of images of this size."""
        return self.whole(start=maps, size=size)

    def __call__(self, images, train=False):
        return self.whole(images, train)


class Built:
    def network(self, *, num_classes, **options):
        size = {"depth": 3, "output_stride": 8, "width": 4}
        options = {"backbone_options": size, **options}
        return Halves(models.create("resnet_tiny", num_classes=num_classes, **options))


def build():
    return Built()


def register():
    models.register("toy_halves", build)
