// Maps read between their pixels along both axes, and what the gradients make of it.
//
//   y(i, j) = sum_a sum_b u_(i, a) w_(j, b) x(m_(i, a), n_(j, b)),   a, b = 0, 1
//
// A line of the result has two rows of pixels, m, and what they count, u; a place within it has two
// pixels, n, and what they count, w. A line that counts nothing is zero.

#include <vector>

#include "lanes.h"

namespace rfjax {
namespace {

namespace ffi = xla::ffi;

using Floats = ffi::Buffer<ffi::F32>;
using Integers = ffi::Buffer<ffi::S32>;

constexpr Index kLines = 4;  // that a thread reads at a time

// The pixels [N | 1, P, 2] of an axis and their weights.
struct Axis {
  const std::int32_t* pixel;
  const float* weight;
  Index places, examples;

  Axis(const Integers& pixel, const Floats& weight)
      : pixel(pixel.typed_data()),
        weight(weight.typed_data()),
        places(pixel.dimensions()[1]),
        examples(pixel.dimensions()[0]) {}

  Index at(Index n, Index place) const { return 2 * ((examples == 1 ? 0 : n) * places + place); }
  bool counts(Index at) const { return weight[at] != 0 || weight[at + 1] != 0; }
};

// Line i of example n: rows blended into `row`, and places read from there.
void read(const Size& size, const Axis& down, const Axis& across, Index n, Index i,
          const float* map, float* row, float* to) {
  const Index length = across.places * size.channels, line = down.at(n, i);
  if (!down.counts(line)) {
    std::fill_n(to, length, 0.0f);
    return;
  }
  const float* first = map + down.pixel[line] * size.row();
  const float* second = map + down.pixel[line + 1] * size.row();
  const float u = down.weight[line], v = down.weight[line + 1];
  sweep(0, size.row(), [&](Index j, auto zero) {
    using V = decltype(zero);
    store(row + j, u * load<V>(first + j) + v * load<V>(second + j));
  });
  for (Index j = 0; j < across.places; ++j, to += size.channels) {
    const Index place = across.at(n, j);
    const float* left = row + across.pixel[place] * size.channels;
    const float* right = row + across.pixel[place + 1] * size.channels;
    const float p = across.weight[place], q = across.weight[place + 1];
    sweep(0, size.channels, [&](Index c, auto zero) {
      using V = decltype(zero);
      store(to + c, p * load<V>(left + c) + q * load<V>(right + c));
    });
  }
}

ffi::Error Read(ffi::ThreadPool pool, Floats x, Integers rows, Floats row_weights,
                Integers columns, Floats column_weights, ffi::Result<Floats> y) {
  const Size size(x);
  const Axis down(rows, row_weights), across(columns, column_weights);
  const Index parts = (down.places + kLines - 1) / kLines;
  const Index length = across.places * size.channels;
  in_parallel(pool, size.examples * parts, [&](Index part) {
    std::vector<float> row(size.row());
    const Index n = part / parts, begin = part % parts * kLines;
    for (Index i = begin; i < std::min(down.places, begin + kLines); ++i)
      read(size, down, across, n, i, x.typed_data() + n * size.map(), row.data(),
           y->typed_data() + (n * down.places + i) * length);
  });
  return ffi::Error::Success();
}

// Some channels of one example, with what its gradients have gathered of them.
class Pull {
 public:
  Pull(const Size& size, const Axis& down, const Axis& across, Index n, Index begin)
      : size_(size),
        down_(down),
        across_(across),
        n_(n),
        begin_(begin),
        channels_(std::min(kChannels, size.channels - begin)),
        row_(size.width * channels_),
        row_gradient_(row_.size()) {}

  // Adds line i, of the gradient `from`, to that of the map and to those of both weights.
  void line(Index i, const float* map, const float* from, float* into, float* by_down,
            float* by_across) {
    const Index line = down_.at(n_, i);
    blend(line, map);
    std::fill(row_gradient_.begin(), row_gradient_.end(), 0.0f);
    for (Index j = 0; j < across_.places; ++j) place(j, from, by_across);
    for (int a = 0; a < 2; ++a)
      by_down[2 * i + a] += spread(down_.pixel[line + a], down_.weight[line + a], map, into);
  }

 private:
  const float* pixel(const float* map, Index y, Index x) const {
    return map + (y * size_.width + x) * size_.channels + begin_;
  }

  // The row that the line's places are read from.
  void blend(Index line, const float* map) {
    const float u = down_.weight[line], v = down_.weight[line + 1];
    for (Index x = 0; x < size_.width; ++x) {
      const float* first = pixel(map, down_.pixel[line], x);
      const float* second = pixel(map, down_.pixel[line + 1], x);
      float* to = row_.data() + x * channels_;
      sweep(0, channels_, [&](Index c, auto zero) {
        using V = decltype(zero);
        store(to + c, u * load<V>(first + c) + v * load<V>(second + c));
      });
    }
  }

  // Place j of the line: its part of the row's gradient, and of that by its weights.
  void place(Index j, const float* from, float* by_across) {
    const Index place = across_.at(n_, j);
    const float* gradient = from + j * size_.channels + begin_;
    for (int b = 0; b < 2; ++b) {
      const Index at = across_.pixel[place + b] * channels_;
      const float weight = across_.weight[place + b];
      Sum sum;
      sweep(0, channels_, [&](Index c, auto zero) {
        using V = decltype(zero);
        const V g = load<V>(gradient + c);
        sum += g * load<V>(row_.data() + at + c);
        store(row_gradient_.data() + at + c,
              load<V>(row_gradient_.data() + at + c) + weight * g);
      });
      by_across[2 * j + b] += sum.total();
    }
  }

  // Row y of the map: its part of the gradient; returns that by its weight.
  float spread(Index y, float weight, const float* map, float* into) {
    Sum sum;
    for (Index x = 0; x < size_.width; ++x) {
      const float* value = pixel(map, y, x);
      float* to = into + (value - map);
      const float* gradient = row_gradient_.data() + x * channels_;
      sweep(0, channels_, [&](Index c, auto zero) {
        using V = decltype(zero);
        const V g = load<V>(gradient + c);
        sum += g * load<V>(value + c);
        store(to + c, load<V>(to + c) + weight * g);
      });
    }
    return sum.total();
  }

  const Size& size_;
  const Axis &down_, &across_;
  const Index n_, begin_, channels_;
  std::vector<float> row_, row_gradient_;
};

// Adds up what the parts [groups, parts of each, numbers] found, to [groups, numbers].
void total(const std::vector<float>& found, Index groups, Index numbers, float* to) {
  const Index parts = found.size() / (groups * numbers);
  std::fill_n(to, groups * numbers, 0.0f);
  for (Index part = 0; part < groups * parts; ++part)
    for (Index i = 0; i < numbers; ++i)
      to[part / parts * numbers + i] += found[part * numbers + i];
}

ffi::Error PullBoth(ffi::ThreadPool pool, Floats x, Floats gradient, Integers rows,
                    Floats row_weights, Integers columns, Floats column_weights,
                    ffi::Result<Floats> x_gradient, ffi::Result<Floats> by_rows,
                    ffi::Result<Floats> by_columns) {
  const Size size(x);
  const Axis down(rows, row_weights), across(columns, column_weights);
  const Index parts = parts_of(size.channels), lines = 2 * down.places, places = 2 * across.places;
  const Index length = across.places * size.channels;
  std::fill_n(x_gradient->typed_data(), size.examples * size.map(), 0.0f);
  std::vector<float> by_down(size.examples * parts * lines);
  std::vector<float> by_across(size.examples * parts * places);
  in_parallel(pool, size.examples * parts, [&](Index work) {
    const Index n = work / parts;
    Pull pull(size, down, across, n, work % parts * kChannels);
    for (Index i = 0; i < down.places; ++i)
      pull.line(i, x.typed_data() + n * size.map(),
                gradient.typed_data() + (n * down.places + i) * length,
                x_gradient->typed_data() + n * size.map(), by_down.data() + work * lines,
                by_across.data() + work * places);
  });
  // Where the examples share an axis, so do they its gradient.
  total(by_down, down.examples, lines, by_rows->typed_data());
  total(by_across, across.examples, places, by_columns->typed_data());
  return ffi::Error::Success();
}

}  // namespace
}  // namespace rfjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(lines_read, rfjax::Read,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<rfjax::Floats>()    // map [N, H, W, C]
                                  .Arg<rfjax::Integers>()  // rows of lines [N | 1, I, 2]
                                  .Arg<rfjax::Floats>()    // and their weights
                                  .Arg<rfjax::Integers>()  // columns of places [N | 1, J, 2]
                                  .Arg<rfjax::Floats>()    // and their weights
                                  .Ret<rfjax::Floats>());  // [N, I, J, C]

XLA_FFI_DEFINE_HANDLER_SYMBOL(lines_pull, rfjax::PullBoth,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<rfjax::Floats>()    // map [N, H, W, C]
                                  .Arg<rfjax::Floats>()    // gradient [N, I, J, C]
                                  .Arg<rfjax::Integers>()  // rows and columns, as above
                                  .Arg<rfjax::Floats>()
                                  .Arg<rfjax::Integers>()
                                  .Arg<rfjax::Floats>()
                                  .Ret<rfjax::Floats>()    // gradient of the map
                                  .Ret<rfjax::Floats>()    // by the rows' weights
                                  .Ret<rfjax::Floats>());  // by the columns' weights
