"""Every number of the engine that was chosen, and what chose it.

Numbers of speed were chosen on a CPU. `python -m benchmarks tuning` sets each against other values
of it; the ratios below are its times with the number that is set by those with the other one, on
two shared x86 cores in float32, forward and backward unless told otherwise. Such a machine varies
by a fifth: between 0.8 and 1.2 there is no difference to tell. Numbers of accuracy were chosen by
errors in float32 against float64. What other devices take for which map is a table by itself,
`rfjax._engine.choices`.
"""

# Speed: which form, and in which static sizes

# Half sizes of sums of shifted maps. Each is a branch to compile and doubles the last: a support
# costs at most twice its own sum. Not tuned beyond that.
SUM_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)

# The largest sum on an axis of L pixels: up to LONG_AXIS pixels it has a half size of L /
# SHORT_SHARE and at most SHORT_SUM, on longer ones LONG_SUM. Beyond it the Toeplitz product serves,
# whose cost grows with L alone: about that of a sum over L / 4 taps, on long axes over 64.
#   1 x 128 x 128 x 64   sigma 8 (R = 16)   0.5 of SHORT_SUM 8, which takes the product
#                        sigma 16 (R = 32)  0.7 of SHORT_SUM 32, which takes the sum
#   8 x 32 x 32 x 64     sigma 4 (R = 8)    0.5 of SHORT_SHARE 8, which takes the product
#                        sigma 8 (R = 16)   0.9 to 1.1 of SHORT_SHARE 2, which takes the sum
#   1 x 512 x 512 x 3    sigma 16 (R = 32)  0.4 of LONG_SUM 16, which takes the product
#                        sigma 32 (R = 64)  0.9 to 1.0 of LONG_SUM 64, which takes the sum
SHORT_SHARE, SHORT_SUM, LONG_AXIS, LONG_SUM = 4, 16, 256, 32

# Banded products: their half sizes, each a branch to compile, and the rows of a block, which reads
# twice the half size beyond its own. By the model of `benchmarks/accelerator`; not measured.
BAND_SIZES, BAND_BLOCK = (16, 64, 128), 64

# Kernels in Pallas: the half size up to which they serve, which need be no larger since their cost
# grows with the half size; the numbers of a tile, of which up to TILE_NUMBERS belong to one pixel.
# Four warps then have 32 numbers a thread. Not measured.
KERNEL_SIZE, TILE, TILE_NUMBERS = 32, 4096, 128

# Full covariances: up to this half size a filter is a sum of shifted maps, of (2 R + 1)^2 taps,
# beyond it a product of transforms, whose cost does not depend on R. On 1 x 64 x 64 x 32: 0.8 of 3,
# which takes transforms at R = 4, and 0.5 of 6, which takes the sum at R = 6.
DENSE_GRID = 4

# Up to here grids of transforms double, then they triple. The next one is chosen rarely and costs
# little more, but every grid is a branch to compile. A bound on the time to compile, not tuned.
DOUBLED_GRID = 8

# Boundaries that read copies of the map are exact up to this half size, or two sides of the map. A
# bound on the memory of an extended map, which `rfjax.filtering` documents; not tuned.
LEAST_REACH = 64

# The half size up to which a CPU filters two axes in one pass. At 1 the pass is a 3 x 3 stencil,
# forward alone 0.4 to 0.6 of two passes on 1 x 128 x 128 x 64; from 2 on its 25 products cost more
# than a second pass.
FUSED = 1

# Kernels in C++ serve half sizes up to a FUSED_SHARE of an axis, within bounds: beyond, products of
# matrices are quicker. On one core, forward and backward on 1 x 128 x 128 x 64, they take 0.08 of
# the products at a half size of 2, 0.43 at 16, 0.82 at 32 and 1.6 at 64. The largest bounds the
# taps that are formed, and is not tuned.
FUSED_SHARE, FUSED_LEAST, FUSED_MOST = 4, 4, 128

# Kernels in C++ serve full covariances up to so many taps. On two cores, forward and backward, by
# what serves without them: 35 taps 0.16 to 0.32, 99 0.18 to 0.22, 323 0.54 to 0.66, 621 0.8 to 1.4,
# 1147 1.3 to 3.4 (1 x 128 x 128 x 64, 8 x 64 x 64 x 32, 1 x 512 x 512 x 3). The half size of either
# axis bounds the taps that are formed, and is not tuned.
DIRECT_TAPS, DIRECT_SIZE = 450, 24

# Speed: blocks that stay in the caches of a CPU, in numbers

# Axes: examples of up to AXES_WHOLE are filtered at a time, and larger ones are split by channels
# into blocks of about AXES_SPLIT. What this buys is memory, since the gradient keeps no map between
# the passes of a block; in time it is not the best on every machine. On the cores of these figures,
# at sigma 1:
#   32 x 64 x 64 x 32    1.4 to 1.5 of the whole map, 1.5 to 1.7 of blocks of 2**19
#   1 x 256 x 256 x 64   1.6 to 1.9 of the whole map, as much as blocks of 2**18
AXES_WHOLE, AXES_SPLIT = 2**21, 5 * 2**17

# Planes: transforms take several times the memory of their map. Beyond a few megabytes the system
# hands that out anew at every call, which costs as much as the transforms. On 2 x 100 x 100 x 512
# such blocks took 0.33 to 0.7 of the time of the whole map when they were introduced; on 8 x 64 x
# 64 x 32 they take 0.7 of blocks of 2**21, and 1.0 to 1.2 of blocks of 2**16.
PLANE_WHOLE, PLANE_SPLIT = 2**18, 2**18

# No block has fewer channels: it would take so little of each cache line that its copies cost more
# than they save. Eight numbers of float32 are half a line of 64 bytes. On 1 x 512 x 512 x 32 they
# take 0.6 to 0.7 of blocks of 2 channels, and 1.7 to 1.8 of the whole map, see AXES_SPLIT.
LEAST_CHANNELS = 8

# Speed: rows as XLA's CPU backend likes them

# Rows of fewer numbers than this are read as one with their neighbors. No difference between 256
# and 1024 for rows of 512 numbers: a convention, not tuned.
LONG_ROW = 1024

# Rows whose distance is a multiple of ALIASED_ROW numbers fall into the same lines of a cache; SKEW
# numbers more per row spread them. 512 numbers are half a page, 16 are a cache line. Where it
# matters depends on the cache: 0.9 to 1.0 of no skew on 1 x 128 x 128 x 64 at sigma 2.
ALIASED_ROW, SKEW = 512, 16

# Rows that are added up by name before a sum over a map is written, as many of them as keep an
# expression within MOST_READS reads: beyond, XLA may no longer fuse it well. Adding up some rows
# took a sixth off forward and backward when it was introduced. How many does not show: 0.9 to 1.1
# of 20 and of 320 on 1 x 128 x 128 x 64 at sigma 2.
ROWS_AT_A_TIME = (1, 2, 4, 8)
MOST_READS = 80

# Toeplitz products of rows of so many numbers are worth a product for each example; a single one
# for all has to transpose the map, and its result again. 0.8 of the single one on 8 x 64 x 64 x 32.
WIDE_ROW = 1024

# Speed: reads at any positions

# Samples of a tap, in numbers, that are gathered and multiplied at a time. On a CPU anything from
# 2**16 to 2**22 is alike (0.9 to 1.2) for a deformable convolution of 2 x 64 x 64 x 64 to 64, so
# that it bounds the memory; so it does elsewhere, at 256 MiB of float32, where it was not measured.
READ_BLOCK_CPU, READ_BLOCK = 2**19, 2**26

# No block has fewer outputs, so that the product with a tap's weights is one of matrices also where
# there are thousands of channels. A bound, not tuned.
LEAST_OUTPUTS = 256

# Windows of a splat in one turn of its loop: 1, 4 and 16 are alike (0.9 to 1.1). The loop itself is
# what counts: a scatter in its place took 7 times as long, 137 ms against 20 ms, in a prototype.
SPLAT_UNROLL = 4

# Outputs of taps at several dilations, in numbers of a tap's mixed map, that are worked off at a
# time on a CPU. Forward and backward take 1.66, 1.52, 1.50 and 1.96 of a plain convolution with
# 2**15, 2**16, 2**17 and 2**19, and forward 1.6 to 2.0: of three dilations, 1 x 64 x 64 x 128 to
# 128, medians of 7 interleaved rounds on one busy core.
MIXED_BLOCK = 2**17

# Kernels in Pallas that read: outputs, channels and features of a tile. With four warps that is 16
# numbers a thread of each corner and 32 of the sum. The outputs whose part of the weights' gradient
# one program sums, and the most of such parts, which bounds their memory. Not measured.
READ_TILE, SHARE_OUTPUTS, MOST_SHARES = (64, 32, 64), 1024, 32

# Accuracy: bounds

# Taps are formed with sigma in these bounds: below, the filter is the identity to the last bit;
# above, it is flat over any map. Squares of both are within float32's range.
SIGMA_MIN, SIGMA_MAX = 1e-6, 1e6

# sigma is formed within these bounds (1e-17 to 1e17 pixels) so that neither it nor a derivative is
# 0 or inf in float32. Outside, the gradient with respect to log sigma is zero. Narrower types are
# widened for all that lies in between, where their squares would leave their range.
LOG_SIGMA_MIN, LOG_SIGMA_MAX = -40.0, 40.0

# By how many units of rounding tau = truncate sigma may exceed an integer without another tap: a
# sigma that went through log and exp comes back within 2 of them.
REACH_SLACK = 8.0

# So many deviations from the mean a Gaussian is 0: exp(-9^2 / 2) is 3e-18.
FAR_DEVIATIONS = 9.0

# Positions are cut here: farther out than any map, and small enough for exact integers, and a place
# inside a cell, in float32.
FAR_POSITION = 2.0**22

# Accuracy: where one formula takes over from another

# The sigma up to which a pixel's mass is a difference of two error functions, and from which it is
# Taylor's series over the pixel. Largest error of taps relative to the largest tap, sigma 0.3 to
# 40: 4.2e-7; 3.4e-7 if the series begins at 2 (where its own error in float64 is larger than that
# of 6), and 1.8e-6 if the difference, which cancels, goes on to 20.
NARROW = 6.0

# The sigma up to which discrete taps are products of ratios, and from which they are Debye's
# expansion. Error of taps, sigma 0.3 to 40: 3.7e-7, and the same at 12, where the products are more
# than twice as long; at 2 the expansion is off by more than 1e-4.
DEBYE_SIGMA = 5.0

# How far beyond the last order the ratios begin: every step shrinks the error of the start by the
# square of a ratio below 1. Errors are 3.7e-7 with 5, 20 and 80: a bound with a margin.
BESSEL_START = 20

# Beyond this many periods sigma is smooth enough for a sum in closed form. Its errors at sigma = 1,
# 2 and 4 periods are 3e-6, 7e-8 and 8e-8 for sampled taps, and 4e-3, 2e-5 and 7e-8 for discrete
# ones, where Edgeworth's series decides: at 8 nothing but rounding is left.
SMOOTH_PERIODS = 8.0

# Beyond this sigma, where no grid holds the support, the sampled taps and their total stand for all
# methods. At 32 the tap in the middle differs from theirs by 6e-5 of itself (integrated) and 3e-4
# (discrete), and by a quarter of that at twice the sigma. A bound on the size of the grid on which
# totals are summed, 64 pixels to either side with the default support.
LARGE_SIGMA = 32.0

# Nodes of Gauss-Legendre in a pixel along y, for integrated taps of a full covariance. Errors with
# 8, 16 and 32 nodes, relative to the largest tap: 2e-9, and rounding from there on, for deviations
# 1 and 0.3; 1e-3, 2e-9 and rounding for 1 and 0.1; 0.1, 9e-3 and 7e-6 for 0.6 and 0.03. The same
# along the whole support, for its total: 1e-4, 3e-8 and rounding for deviations 300 and 33, so that
# 64 leave a margin for narrower ones.
PIXEL_NODES = 32
LINE_NODES = 64

# Selling's decomposition: products of base vectors closer to zero than this share of the trace are
# rounding, and exchanging for them could cycle. The number of exchanges grows with the logarithm
# of the ratio of the axes; its bound only ends a loop over NaN.
EXCHANGE_TOLERANCE = 1e-6
MOST_EXCHANGES = 1000
