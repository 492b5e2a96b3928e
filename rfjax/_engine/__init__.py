"""The engine: how a map is filtered and read. One file an algorithm, and here is its equation.

Taps: what a Gaussian is on pixels
    factor       Sigma = U^T U, U from (log u_yy, u_yx, log u_xx)
    profile      g(d) at the integers d: exp(-d^2 / 2 sigma^2), its integral over a pixel; supports
    discrete     T(n, t) = exp(-t) I_n(t) on a line; the same of a covariance on a grid
    totals       sum_d g(d) and sum_m g(r + m period), of supports of any size
    grid         G(v; Sigma) = exp(-v^T Sigma^-1 v / 2) at the integers v = (y, x), and its total

Filtering: y(p) = sum_d g(d; Sigma) x(p + d)
    separable    g(d) = prod_a g(d_a; sigma_a): one axis after the other       <- gaussian_blur
    correlated   full covariances: both axes at once                           <- gaussian_blur
    shift_add    y = w_0 x + sum_k w_k (x shifted by -k + x shifted by k), for short filters
    toeplitz     y = K x, K[i, j] = g(i - j) with its boundary, for long ones along an axis
    fused        both axes in one reading of the map, by kernels in C++ on a CPU
    direct       full covariances tap by tap, by kernels in C++ on a CPU
    kernels      the sum of shift_add as one kernel of a GPU, whose half size is traced
    fourier      y = F^-1(F(x) F(g)), for long ones of full covariances
    local        y(p) = sum_d g_p(d) x(p + d)                            <- local_gaussian_blur

Reading: y(p) = sum_k theta_k^T v(p + p_k), v the bilinear interpolation of x
    cells        v(i + a, j + b) = (1-a)(1-b) x[i, j] + ..., and its adjoint, on rows of channels
    reads        taps at any positions                                          <- sampled_conv
    tap_blocks   all taps of a block of outputs at once, by kernels in C++ on a CPU
    tap_kernels  the same as kernels of a GPU, for positions of each output
    conv         taps on pixels: the plain convolution                             <- blur_conv
    mixed        taps at several dilations, mixed at every output     <- adaptive_dilated_conv
    mixes        the same by kernels in C++ on a CPU
    lines        between pixels along both axes: y = A x B^T          <- inflate, interpolate
    products     rows of channels by the weights of a tap

Choosing
    blur         the options that all blurs share, and their checks
    plan         which form serves which axes on which platform, in which static sizes
    choices      which form serves maps of which size on a GPU or TPU: a table that a program writes
    tuning       every number that was chosen, and what chose it

What the compiler wants
    derivatives  first gradients written out, all others by a plain form
    devices      one function for a CPU, one for other devices, one where XLA partitions
    meshes       meshes with explicit axes: what XLA partitions, and what goes in and out
    switch       a switch between static sizes by a traced one, also under vmap
    blocks       a map worked off in parts that stay in the caches of a CPU
    layout       orders in memory; sums over maps
    native       kernels in C++, where they were built, and their calls
    clamp        bounds whose gradient is whole on the bound

A blur goes `filtering.gaussian_blur` -> `separable` (or `correlated`) -> `devices` -> `switch` ->
`shift_add` or `toeplitz` (or `fourier`). The engine imports nothing of the package but checks of
arguments and where files of the user are kept.
"""
