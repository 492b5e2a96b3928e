// Taps read at real-valued positions of a map, and what their samples' gradients make of it.
//
//   v = f ((1 - y) ((1 - x) v_00 + x v_01) + y ((1 - x) v_10 + x v_11))
//
// A map is rows of channels, a pixel a row, within a border of zeros. A tap has the row of the pixel
// v_00, the place (y, x) inside of the cell of four pixels that begins there, and a factor f.

#include <vector>

#include "lanes.h"

namespace rfjax {
namespace {

namespace ffi = xla::ffi;

using Floats = ffi::Buffer<ffi::F32>;
using Integers = ffi::Buffer<ffi::S32>;

constexpr Index kTaps = 256;  // that a thread reads at a time

struct Map {
  Index channels, width;
};

struct Taps {
  const std::int32_t* row;
  const float *y, *x, *factor;
  Index count;

  Taps(const Integers& row, const Floats& y, const Floats& x, const Floats& factor)
      : row(row.typed_data()),
        y(y.typed_data()),
        x(x.typed_data()),
        factor(factor.typed_data()),
        count(row.element_count()) {}
};

// Where the corners of a tap's cell stand: top left and right, bottom left and right.
struct Corners {
  Index at[4];
  Corners(const Map& map, Index row)
      : at{row * map.channels, (row + 1) * map.channels, (row + map.width) * map.channels,
           (row + map.width + 1) * map.channels} {}
};

// What the corners of a cell count: their samples' sum is what a tap reads.
struct Weights {
  float at[4];
  Weights(const Taps& taps, Index i) {
    const float y = taps.y[i], x = taps.x[i], f = taps.factor[i];
    at[0] = f * (1 - y) * (1 - x);
    at[1] = f * (1 - y) * x;
    at[2] = f * y * (1 - x);
    at[3] = f * y * x;
  }
};

ffi::Error Read(ffi::ThreadPool pool, Floats rows, Integers row, Floats y, Floats x, Floats factor,
                Index width, ffi::Result<Floats> samples) {
  const Map map{rows.dimensions()[1], width};
  const Taps taps(row, y, x, factor);
  const float* from = rows.typed_data();
  float* to = samples->typed_data();
  in_parallel(pool, (taps.count + kTaps - 1) / kTaps, [&](Index part) {
    const Index end = std::min(taps.count, (part + 1) * kTaps);
    for (Index i = part * kTaps; i < end; ++i) {
      const Corners corners(map, taps.row[i]);
      const Weights weights(taps, i);
      sweep(0, map.channels, [&](Index j, auto zero) {
        auto sum = zero;
        for (int k = 0; k < 4; ++k)
          sum += weights.at[k] * load<decltype(zero)>(from + corners.at[k] + j);
        store(to + i * map.channels + j, sum);
      });
    }
  });
  return ffi::Error::Success();
}

// The samples' slopes along y, x and the factor, times the gradient of the samples.
struct Slopes {
  float along[3];
};

// Channels [begin, end) of tap i: its sample, its slopes, and its part of the map's gradient.
Slopes pull(const Map& map, const Taps& taps, Index i, Index begin, Index end, const float* from,
            const float* gradient, float* sample, float* into) {
  const Corners corners(map, taps.row[i]);
  const Weights weights(taps, i);
  const float y = taps.y[i], x = taps.x[i], f = taps.factor[i];
  Sum by_y, by_x, by_factor;
  sweep(begin, end, [&](Index j, auto zero) {
    using V = decltype(zero);
    const V g = load<V>(gradient + i * map.channels + j);
    V v[4];
    for (int k = 0; k < 4; ++k) v[k] = load<V>(from + corners.at[k] + j);
    const V top = v[1] - v[0], bottom = v[3] - v[2];
    const V along_y = (v[2] + x * bottom) - (v[0] + x * top);
    const V value = v[0] + x * top + y * along_y;
    store(sample + i * map.channels + j, f * value);
    by_factor += g * value;
    by_y += g * along_y;
    by_x += g * (top + y * (bottom - top));
    for (int k = 0; k < 4; ++k) {
      float* at = into + corners.at[k] + j;
      store(at, load<V>(at) + weights.at[k] * g);
    }
  });
  return {f * by_y.total(), f * by_x.total(), by_factor.total()};
}

ffi::Error Pull(ffi::ThreadPool pool, Floats rows, Floats gradient_so_far, Floats gradient,
                Integers row, Floats y, Floats x, Floats factor, Index width,
                ffi::Result<Floats> rows_gradient, ffi::Result<Floats> samples,
                ffi::Result<Floats> slopes) {
  const Map map{rows.dimensions()[1], width};
  const Taps taps(row, y, x, factor);
  float* into = rows_gradient->typed_data();
  if (into != gradient_so_far.typed_data())
    std::copy_n(gradient_so_far.typed_data(), gradient_so_far.element_count(), into);
  const Index parts = parts_of(map.channels);
  std::vector<Slopes> found(parts * taps.count);
  in_parallel(pool, parts, [&](Index part) {
    const Index begin = part * kChannels, end = std::min(map.channels, begin + kChannels);
    for (Index i = 0; i < taps.count; ++i)
      found[part * taps.count + i] = pull(map, taps, i, begin, end, rows.typed_data(),
                                          gradient.typed_data(), samples->typed_data(), into);
  });
  float* to = slopes->typed_data();
  for (Index i = 0; i < taps.count; ++i)
    for (int axis = 0; axis < 3; ++axis) {
      float sum = 0;
      for (Index part = 0; part < parts; ++part) sum += found[part * taps.count + i].along[axis];
      to[3 * i + axis] = sum;
    }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace rfjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(reads_read, rfjax::Read,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<rfjax::Floats>()    // rows [R, C]
                                  .Arg<rfjax::Integers>()  // taps' rows [P, T]
                                  .Arg<rfjax::Floats>()    // their places inside, y
                                  .Arg<rfjax::Floats>()    // and x
                                  .Arg<rfjax::Floats>()    // their factors
                                  .Attr<rfjax::Index>("width")
                                  .Ret<rfjax::Floats>());  // samples [P, T, C]

XLA_FFI_DEFINE_HANDLER_SYMBOL(reads_pull, rfjax::Pull,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<rfjax::Floats>()    // rows [R, C]
                                  .Arg<rfjax::Floats>()    // their gradient so far
                                  .Arg<rfjax::Floats>()    // the samples' gradient [P, T, C]
                                  .Arg<rfjax::Integers>()  // taps, as above
                                  .Arg<rfjax::Floats>()
                                  .Arg<rfjax::Floats>()
                                  .Arg<rfjax::Floats>()
                                  .Attr<rfjax::Index>("width")
                                  .Ret<rfjax::Floats>()    // the rows' gradient
                                  .Ret<rfjax::Floats>()    // samples [P, T, C]
                                  .Ret<rfjax::Floats>());  // slopes [P, T, 3] by y, x and factor
