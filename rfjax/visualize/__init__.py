"""Every figure, each a function that returns a Matplotlib `Figure`.

adaptive     receptive fields that adapt, side by side
images       label maps as colors and over images; panels of images, labels, scales and filters
covariances  Gaussians over the pixels of their maps, and what they blur
episodes     what is marked in a support, and what is segmented by it
fields       receptive fields
flow         flows as colors
training     curves of a training run
search       candidates of a search against an enumeration
studies      seeds of a table, sampling points, scales
video        frames with what ran on them, animations

Figures are made without pyplot, so nothing is shown, kept or configured globally: they work without
a display and in any thread. `save` writes one to a file and `to_rgb` turns one into an array. Label
maps are integers [H, W]; values without a color, as 255 for void, are drawn in light grey.
"""

from rfjax import _extras

if fault := _extras.missing(__name__, "matplotlib", "PIL"):
    raise fault

from rfjax.visualize._files import Failures as Failures
from rfjax.visualize._files import save as save
from rfjax.visualize._files import to_rgb as to_rgb
from rfjax.visualize._files import write_png as write_png
from rfjax.visualize._style import INK as INK
from rfjax.visualize._style import LINES as LINES
from rfjax.visualize._style import MUTED as MUTED
from rfjax.visualize._style import RULE as RULE
from rfjax.visualize._style import finish as finish
from rfjax.visualize.adaptive import comparison as comparison
from rfjax.visualize.adaptive import maps_beside_images as maps_beside_images
from rfjax.visualize.adaptive import number_curves as number_curves
from rfjax.visualize.covariances import LARGEST_REACH as LARGEST_REACH
from rfjax.visualize.covariances import blur_panels as blur_panels
from rfjax.visualize.covariances import covariance_ellipses as covariance_ellipses
from rfjax.visualize.episodes import episode_panels as episode_panels
from rfjax.visualize.episodes import marked_image as marked_image
from rfjax.visualize.fields import receptive_field as receptive_field
from rfjax.visualize.flow import flow_colors as flow_colors
from rfjax.visualize.flow import flow_panels as flow_panels
from rfjax.visualize.flow import flow_wheel as flow_wheel
from rfjax.visualize.images import VOID_COLOR as VOID_COLOR
from rfjax.visualize.images import captioned_images as captioned_images
from rfjax.visualize.images import colorize as colorize
from rfjax.visualize.images import filter_panels as filter_panels
from rfjax.visualize.images import image_columns as image_columns
from rfjax.visualize.images import image_rows as image_rows
from rfjax.visualize.images import legend as legend
from rfjax.visualize.images import overlay as overlay
from rfjax.visualize.images import palette_image as palette_image
from rfjax.visualize.images import scale_panels as scale_panels
from rfjax.visualize.images import segmentation_panels as segmentation_panels
from rfjax.visualize.search import Paths as Paths
from rfjax.visualize.search import scores_against_sigma as scores_against_sigma
from rfjax.visualize.search import trajectories as trajectories
from rfjax.visualize.studies import clock_curves as clock_curves
from rfjax.visualize.studies import sampling_points as sampling_points
from rfjax.visualize.studies import scale_scatter as scale_scatter
from rfjax.visualize.studies import seed_bars as seed_bars
from rfjax.visualize.studies import seed_curves as seed_curves
from rfjax.visualize.training import confusion as confusion
from rfjax.visualize.training import sigma_curves as sigma_curves
from rfjax.visualize.training import training_curves as training_curves
from rfjax.visualize.video import animate as animate
from rfjax.visualize.video import schedule_strip as schedule_strip
from rfjax.visualize.video import scheduled_frame as scheduled_frame
