// Taps at several dilations mixed at every output, and what their gradients make of it.
//
//   u_t(p) = sum_n w_n(p) x(p + o_(t, n))
//
// A map is rows of channels, a pixel a row, within a border of zeros as wide as taps reach. An
// output has the row of its center, and every tap a distance in rows for each dilation.

#include <vector>

#include "lanes.h"

namespace rfjax {
namespace {

namespace ffi = xla::ffi;

using Floats = ffi::Buffer<ffi::F32>;
using Integers = ffi::Buffer<ffi::S32>;

constexpr Index kOutputs = 32;  // that a thread mixes at a time

// The centers of outputs [P], distances [T, D] and weights [P, D].
struct Mix {
  const std::int32_t *center, *distance;
  const float* weight;
  Index outputs, taps, dilations;

  Mix(const Integers& center, const Integers& distance, const Floats& weight)
      : center(center.typed_data()),
        distance(distance.typed_data()),
        weight(weight.typed_data()),
        outputs(center.element_count()),
        taps(distance.dimensions()[0]),
        dilations(distance.dimensions()[1]) {}

  Index row(Index output, Index tap, Index n) const {
    return center[output] + distance[tap * dilations + n];
  }
};

ffi::Error Read(ffi::ThreadPool pool, Floats rows, Integers center, Integers distance,
                Floats weight, ffi::Result<Floats> mixed) {
  const Mix mix(center, distance, weight);
  const Index channels = rows.dimensions()[1];
  const float* from = rows.typed_data();
  float* to = mixed->typed_data();
  in_parallel(pool, (mix.outputs + kOutputs - 1) / kOutputs, [&](Index part) {
    const Index end = std::min(mix.outputs, (part + 1) * kOutputs);
    for (Index p = part * kOutputs; p < end; ++p) {
      const float* w = mix.weight + p * mix.dilations;
      for (Index t = 0; t < mix.taps; ++t) {
        float* sample = to + (p * mix.taps + t) * channels;
        sweep(0, channels, [&](Index j, auto zero) {
          auto sum = zero;
          for (Index n = 0; n < mix.dilations; ++n)
            sum += w[n] * load<decltype(zero)>(from + mix.row(p, t, n) * channels + j);
          store(sample + j, sum);
        });
      }
    }
  });
  return ffi::Error::Success();
}

// Channels [begin, end) of a tap of output p: the mixed sample, its part of the map's gradient, and
// of the gradient by the weights, which is added to `by_weight` [D].
void pull(const Mix& mix, Index p, Index t, Index channels, Index begin, Index end,
          const float* from, const float* gradient, float* mixed, float* into, float* by_weight) {
  const float* w = mix.weight + p * mix.dilations;
  const Index here = (p * mix.taps + t) * channels;
  sweep(begin, end, [&](Index j, auto zero) { store(mixed + here + j, zero); });
  for (Index n = 0; n < mix.dilations; ++n) {
    const Index row = mix.row(p, t, n) * channels;
    Sum sum;
    sweep(begin, end, [&](Index j, auto zero) {
      using V = decltype(zero);
      const V g = load<V>(gradient + here + j), x = load<V>(from + row + j);
      sum += g * x;
      store(mixed + here + j, load<V>(mixed + here + j) + w[n] * x);
      store(into + row + j, load<V>(into + row + j) + w[n] * g);
    });
    by_weight[n] += sum.total();
  }
}

ffi::Error Pull(ffi::ThreadPool pool, Floats rows, Floats gradient_so_far, Floats gradient,
                Integers center, Integers distance, Floats weight,
                ffi::Result<Floats> rows_gradient, ffi::Result<Floats> mixed,
                ffi::Result<Floats> weight_gradient) {
  const Mix mix(center, distance, weight);
  const Index channels = rows.dimensions()[1], numbers = mix.outputs * mix.dilations;
  float* into = rows_gradient->typed_data();
  if (into != gradient_so_far.typed_data())
    std::copy_n(gradient_so_far.typed_data(), gradient_so_far.element_count(), into);
  const Index parts = parts_of(channels);
  std::vector<float> found(parts * numbers);
  in_parallel(pool, parts, [&](Index part) {
    const Index begin = part * kChannels, end = std::min(channels, begin + kChannels);
    for (Index p = 0; p < mix.outputs; ++p)
      for (Index t = 0; t < mix.taps; ++t)
        pull(mix, p, t, channels, begin, end, rows.typed_data(), gradient.typed_data(),
             mixed->typed_data(), into, found.data() + part * numbers + p * mix.dilations);
  });
  float* to = weight_gradient->typed_data();
  for (Index i = 0; i < numbers; ++i) {
    to[i] = 0;
    for (Index part = 0; part < parts; ++part) to[i] += found[part * numbers + i];
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace rfjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(mixes_read, rfjax::Read,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<rfjax::Floats>()    // rows [R, C]
                                  .Arg<rfjax::Integers>()  // centers [P]
                                  .Arg<rfjax::Integers>()  // distances [T, D]
                                  .Arg<rfjax::Floats>()    // weights [P, D]
                                  .Ret<rfjax::Floats>());  // mixed samples [P, T, C]

XLA_FFI_DEFINE_HANDLER_SYMBOL(mixes_pull, rfjax::Pull,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<rfjax::Floats>()  // rows [R, C]
                                  .Arg<rfjax::Floats>()  // their gradient so far
                                  .Arg<rfjax::Floats>()  // the samples' gradient [P, T, C]
                                  .Arg<rfjax::Integers>()
                                  .Arg<rfjax::Integers>()
                                  .Arg<rfjax::Floats>()
                                  .Ret<rfjax::Floats>()    // the rows' gradient
                                  .Ret<rfjax::Floats>()    // mixed samples [P, T, C]
                                  .Ret<rfjax::Floats>());  // the weights' gradient [P, D]
