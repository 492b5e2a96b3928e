// Filters of both axes at once, tap by tap, of a map [N, H, W, C], and what their gradients are.
//
//   y(p) = sum_d w(d) x(p + d),   w(d) = w(-d),   zeros outside of the map
//
// A tile of rows is copied into the caches with zeros about it. There a row of pixels and channels
// is one line of numbers, and a tap a distance along it: the sums of a block of numbers stay in
// registers while all taps are read. The filter is its own adjoint; the gradient by the taps is
// that of every tap on its own, sum_p g(p) x(p + d).

#include <vector>

#include "lanes.h"

namespace rfjax {
namespace {

namespace ffi = xla::ffi;

using Floats = ffi::Buffer<ffi::F32>;
using Integers = ffi::Buffer<ffi::S32>;

constexpr Index kVectors = 8;  // whose sums are in registers at a time
constexpr Index kBlock = kVectors * kWidth<Lanes>;
constexpr Index kTileRows = 16;

// How many tiles of rows an example has.
Index tiles_of(const Size& size) { return (size.height + kTileRows - 1) / kTileRows; }

// The taps [N | 1, 2 a + 1, 2 b + 1], of which those up to (down, across) are in use.
struct Taps {
  const float* values;
  Index examples, rows, columns, down, across;

  Taps(const Floats& taps, const Integers& sizes)
      : values(taps.typed_data()),
        examples(taps.dimensions()[0]),
        rows(taps.dimensions()[1]),
        columns(taps.dimensions()[2]),
        down(within(sizes.typed_data()[0], rows / 2)),
        across(within(sizes.typed_data()[1], columns / 2)) {}

  static Index within(Index size, Index most) { return std::max<Index>(0, std::min(size, most)); }
  Index count() const { return rows * columns; }
  // Where tap (i, j) of those in use stands among all of an example.
  Index at(Index i, Index j) const {
    return (rows / 2 - down + i) * columns + columns / 2 - across + j;
  }
  const float* of(Index n) const { return values + (examples == 1 ? 0 : n) * count(); }
};

// Some rows of an example, with zeros about them.
class Tile {
 public:
  Tile(const Size& size, const Taps& taps, Index index)
      : example(index / tiles_of(size)),
        begin(index % tiles_of(size) * kTileRows),
        end(std::min(size.height, begin + kTileRows)),
        length_(size.row() + 2 * taps.across * size.channels),
        numbers_((end - begin + 2 * taps.down) * length_) {}

  void fill(const Size& size, const Taps& taps, const float* map) {
    const Index margin = taps.across * size.channels;
    const Index first = std::max<Index>(0, begin - taps.down);
    const Index last = std::min(size.height, end + taps.down);
    for (Index r = first; r < last; ++r)
      std::copy_n(map + example * size.map() + r * size.row(), size.row(),
                  numbers_.data() + (r - begin + taps.down) * length_ + margin);
  }

  // What tap row i reads for row r of the map, at the first number.
  const float* row(Index r, Index i) const { return numbers_.data() + (r - begin + i) * length_; }

  const Index example, begin, end;

 private:
  const Index length_;
  std::vector<float> numbers_;
};

// `kCount` vectors of row r from number j: the sums over all taps.
template <class V, Index kCount>
void sum(const Tile& tile, const Taps& taps, Index channels, Index r, Index j, float* to) {
  const float* weights = taps.of(tile.example);
  V sums[kCount] = {};
  for (Index i = 0; i <= 2 * taps.down; ++i) {
    const float* from = tile.row(r, i) + j;
    const float* weight = weights + taps.at(i, 0);
    for (Index k = 0; k <= 2 * taps.across; ++k, from += channels)
      for (Index v = 0; v < kCount; ++v) sums[v] += weight[k] * load<V>(from + v * kWidth<V>);
  }
  for (Index v = 0; v < kCount; ++v) store(to + j + v * kWidth<V>, sums[v]);
}

void filter(const Tile& tile, const Size& size, const Taps& taps, float* to) {
  const Index length = size.row();
  for (Index r = tile.begin; r < tile.end; ++r) {
    float* row = to + tile.example * size.map() + r * length;
    Index j = 0;
    for (; j + kBlock <= length; j += kBlock)
      sum<Lanes, kVectors>(tile, taps, size.channels, r, j, row);
    for (; j + kWidth<Lanes> <= length; j += kWidth<Lanes>)
      sum<Lanes, 1>(tile, taps, size.channels, r, j, row);
    for (; j < length; ++j) sum<float, 1>(tile, taps, size.channels, r, j, row);
  }
}

ffi::Error Filter(ffi::ThreadPool pool, Floats x, Floats weights, Integers sizes,
                  ffi::Result<Floats> y) {
  const Size size(x);
  const Taps taps(weights, sizes);
  in_parallel(pool, size.examples * tiles_of(size), [&](Index index) {
    Tile tile(size, taps, index);
    tile.fill(size, taps, x.typed_data());
    filter(tile, size, taps, y->typed_data());
  });
  return ffi::Error::Success();
}

// Adds to `found`, of every tap in use, the products of `kCount` vectors of the gradient.
template <class V, Index kCount>
void match(const Tile& tile, const Taps& taps, Index channels, Index r, Index j,
           const float* gradient, Sum* found) {
  V own[kCount];
  for (Index v = 0; v < kCount; ++v) own[v] = load<V>(gradient + j + v * kWidth<V>);
  for (Index i = 0; i <= 2 * taps.down; ++i) {
    const float* from = tile.row(r, i) + j;
    for (Index k = 0; k <= 2 * taps.across; ++k, from += channels, ++found) {
      // Two sums, so that one addition need not wait for the other.
      V even{}, odd{};
      for (Index v = 0; v < kCount; v += 2) even += own[v] * load<V>(from + v * kWidth<V>);
      for (Index v = 1; v < kCount; v += 2) odd += own[v] * load<V>(from + v * kWidth<V>);
      *found += even + odd;
    }
  }
}

void match_all(const Tile& tile, const Size& size, const Taps& taps, const float* gradient,
               Sum* found) {
  const Index length = size.row();
  for (Index r = tile.begin; r < tile.end; ++r) {
    const float* row = gradient + tile.example * size.map() + r * length;
    Index j = 0;
    for (; j + kBlock <= length; j += kBlock)
      match<Lanes, kVectors>(tile, taps, size.channels, r, j, row, found);
    for (; j + kWidth<Lanes> <= length; j += kWidth<Lanes>)
      match<Lanes, 1>(tile, taps, size.channels, r, j, row, found);
    for (; j < length; ++j) match<float, 1>(tile, taps, size.channels, r, j, row, found);
  }
}

ffi::Error Pull(ffi::ThreadPool pool, Floats x, Floats gradient, Floats weights, Integers sizes,
                ffi::Result<Floats> x_gradient, ffi::Result<Floats> taps_gradient) {
  const Size size(x);
  const Taps taps(weights, sizes);
  const Index used = (2 * taps.down + 1) * (2 * taps.across + 1);
  const Index tiles = size.examples * tiles_of(size);
  std::vector<float> found(tiles * used);
  in_parallel(pool, tiles, [&](Index index) {
    Tile tile(size, taps, index);
    tile.fill(size, taps, gradient.typed_data());
    filter(tile, size, taps, x_gradient->typed_data());
    tile.fill(size, taps, x.typed_data());
    std::vector<Sum> sums(used);
    match_all(tile, size, taps, gradient.typed_data(), sums.data());
    for (Index k = 0; k < used; ++k) found[index * used + k] = sums[k].total();
  });
  // In an order that does not depend on threads.
  float* to = taps_gradient->typed_data();
  std::fill_n(to, taps.examples * taps.count(), 0.0f);
  for (Index index = 0; index < tiles; ++index) {
    float* own = to + (taps.examples == 1 ? 0 : index / tiles_of(size)) * taps.count();
    for (Index i = 0, k = index * used; i <= 2 * taps.down; ++i)
      for (Index j = 0; j <= 2 * taps.across; ++j, ++k) own[taps.at(i, j)] += found[k];
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace rfjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(plane_filter, rfjax::Filter,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<rfjax::Floats>()    // map [N, H, W, C]
                                  .Arg<rfjax::Floats>()    // taps [N | 1, 2 a + 1, 2 b + 1]
                                  .Arg<rfjax::Integers>()  // half sizes in use [2]
                                  .Ret<rfjax::Floats>());  // filtered map

XLA_FFI_DEFINE_HANDLER_SYMBOL(plane_pull, rfjax::Pull,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<rfjax::Floats>()    // map [N, H, W, C]
                                  .Arg<rfjax::Floats>()    // gradient of the filtered map
                                  .Arg<rfjax::Floats>()    // taps and half sizes, as above
                                  .Arg<rfjax::Integers>()
                                  .Ret<rfjax::Floats>()    // gradient of the map
                                  .Ret<rfjax::Floats>());  // and of the taps
