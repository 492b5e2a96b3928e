// Gaussian filtering of both axes of a map [N, H, W, C] in one reading of it, and its gradient.
//
//   down    v[r, j] = w_0 x[r, j] + sum_k w_k (x[r - k, j] + x[r + k, j])
//   across  y[r, j] = u_0 v[r, j] + sum_k u_k (v[r, j - k] + v[r, j + k])
//
// A row v is formed in a buffer that stays in the caches, and read from there: no map is written
// between the passes. The filter is its own adjoint where zeros lie outside, so that the gradients
// of a cotangent g are the filter of g, and the sums of x times the filters of g in which the taps
// of one axis are replaced by their derivatives.
//
// The map is worked off in tiles, which are shared out over threads. Every number is computed, and
// every sum added up, in an order that does not depend on how many threads there are.

#include <vector>

#include "lanes.h"

namespace rfjax {
namespace {

namespace ffi = xla::ffi;

// Numbers of a row that are worked off at a time: as many as fill the vector registers, also with
// weights of their own.
constexpr Index kBlock = 64;
// Numbers of a row of a tile, and its rows: eight pages are half of a cache of the first level.
// More are worth while for long filters, which read as many pixels again around a tile.
constexpr Index kTileRow = 8192, kTileRows = 16, kTileReach = 4;

// The order is that of the argument `padding` in native.py.
enum Padding : Index { kZero, kEdge, kReflect, kWrap };

struct Shape {
  Index count, height, width, channels;
  Index row() const { return width * channels; }
  Index map() const { return height * row(); }
};

// The taps of an axis up to half size `size`: of all channels [size + 1], or, in rows beside the
// map, [size + 1, period], where `period` numbers hold every channel equally often.
struct Taps {
  const float* values;
  Index period;
};

template <class V, bool kRows>
V weight(const Taps& taps, Index k, Index at) {
  if constexpr (kRows) return load<V>(taps.values + k * taps.period + at);
  return V{} + taps.values[k];
}

// Rows that are summed up: the one in the middle, and the pair at distance k at [k - 1].
struct Rows {
  const float* middle;
  const float* const* before;
  const float* const* after;
  Index size;
};

// Hands `kCount` vectors at j of the sums, by each of the sets of taps, to take(set, j, at, sum).
template <class V, Index kCount, bool kRows, int kSets, class Take>
void sum_block(const Rows& rows, const Taps (&taps)[kSets], Index j, Index at, const Take& take) {
  V sums[kSets][kCount];
  for (Index i = 0; i < kCount; ++i) {
    const Index o = i * kWidth<V>;
    const V value = load<V>(rows.middle + j + o);
    for (int s = 0; s < kSets; ++s) sums[s][i] = weight<V, kRows>(taps[s], 0, at + o) * value;
  }
  for (Index k = 1; k <= rows.size; ++k) {
    const float* before = rows.before[k - 1] + j;
    const float* after = rows.after[k - 1] + j;
    for (Index i = 0; i < kCount; ++i) {
      const Index o = i * kWidth<V>;
      const V pair = load<V>(before + o) + load<V>(after + o);
      for (int s = 0; s < kSets; ++s) sums[s][i] += weight<V, kRows>(taps[s], k, at + o) * pair;
    }
  }
  for (int s = 0; s < kSets; ++s)
    for (Index i = 0; i < kCount; ++i) take(s, j + i * kWidth<V>, at + i * kWidth<V>, sums[s][i]);
}

// Sums of n numbers of rows, by blocks within periods.
template <bool kRows, int kSets, class Take>
void sum_rows(const Rows& rows, const Taps (&taps)[kSets], Index n, const Take& take) {
  // Two sets have twice as many sums, which all stay in registers.
  constexpr Index kCount = kBlock / kWidth<Lanes> / kSets;
  const Index period = taps[0].period;
  for (Index start = 0; start < n; start += period) {
    const Index end = std::min(period, n - start);
    Index at = 0;
    for (; at + kCount * kWidth<Lanes> <= end; at += kCount * kWidth<Lanes>)
      sum_block<Lanes, kCount, kRows>(rows, taps, start + at, at, take);
    for (; at + kWidth<Lanes> <= end; at += kWidth<Lanes>)
      sum_block<Lanes, 1, kRows>(rows, taps, start + at, at, take);
    for (; at < end; ++at) sum_block<float, 1, kRows>(rows, taps, start + at, at, take);
  }
}

// Which pixel of n stands at i, or -1 where it is zero.
Index source(Index i, Index n, Index padding) {
  if (0 <= i && i < n) return i;
  if (padding == kEdge) return i < 0 ? 0 : n - 1;
  if (padding == kWrap) return (i % n + n) % n;
  if (padding != kReflect) return -1;
  const Index turn = std::max<Index>(2 * (n - 1), 1);
  const Index along = (i % turn + turn) % turn;
  return std::min(along, turn - along);
}

// Taps [n, c, bound] up to a half size, in the order in which a row is read.
class Axis {
 public:
  // Whatever the size is, nothing beyond the taps is read.
  Axis(const ffi::Buffer<ffi::F32>& taps, Index wanted)
      : size(std::clamp<Index>(wanted, 0, taps.dimensions()[2] - 1)) {
    const Index n = taps.dimensions()[0], c = taps.dimensions()[1], bound = taps.dimensions()[2];
    is_rows = c > 1;
    period_ = is_rows ? c * ((kBlock + c - 1) / c) : kBlock;
    const Index width = is_rows ? period_ : 1;
    stride_ = n > 1 ? (size + 1) * width : 0;
    for (Index example = 0; example < n; ++example)
      for (Index k = 0; k <= size; ++k)
        for (Index j = 0; j < width; ++j)
          values_.push_back(taps.typed_data()[(example * c + j % c) * bound + k]);
  }
  Taps of(Index example) const { return {values_.data() + example * stride_, period_}; }

  const Index size;
  bool is_rows;

 private:
  Index period_, stride_;
  std::vector<float> values_;
};

// Rows [top, bottom) and columns [left, right) of an example.
struct Tile {
  Index example, top, bottom, left, right;
};

class Tiles {
 public:
  // Where what lies outside is read from the map, a tile has all columns.
  Tiles(const Shape& shape, Index size, bool whole) : shape_(shape) {
    // Enough of them for all threads, also of a small map.
    const Index most = std::max<Index>(8, shape.count * shape.height / 8);
    rows_ = std::min({shape.height, std::max(kTileRows, kTileReach * size), most});
    const Index columns = std::max(kTileReach * size, kTileRow / shape.channels + 1);
    columns_ = whole ? shape.width : std::min(shape.width, columns);
    down_ = (shape.height + rows_ - 1) / rows_;
    across_ = (shape.width + columns_ - 1) / columns_;
  }
  Index count() const { return shape_.count * down_ * across_; }
  Index columns() const { return columns_; }
  Tile operator[](Index i) const {
    const Index left = i % across_ * columns_, top = i / across_ % down_ * rows_;
    return {i / across_ / down_, top, std::min(shape_.height, top + rows_), left,
            std::min(shape_.width, left + columns_)};
  }

 private:
  const Shape shape_;
  Index rows_, columns_, down_, across_;
};

// What a thread keeps between tiles and calls: rows with borders, and where their sums are read.
class Workspace {
 public:
  static Workspace& of(const Shape& shape, const Tiles& tiles, const Axis& down,
                       const Axis& across) {
    thread_local Workspace own;
    const size_t row = (tiles.columns() + 2 * across.size) * shape.channels;
    for (auto* kept : {&own.row_[0], &own.row_[1], &own.zeros_})
      if (kept->size() < row) kept->resize(row);
    const size_t size = std::max(down.size, across.size);
    for (auto* kept : {&own.before_, &own.after_})
      if (kept->size() < size) kept->resize(size);
    return own;
  }

  float* row(int set) { return row_[set].data(); }

  // Row r of a map and those around it, from number `first` on.
  Rows around(const float* map, const Shape& shape, Index r, Index first, Index size,
              Index padding) {
    auto at = [&](Index i) {
      const Index row = source(i, shape.height, padding);
      return row < 0 ? zeros_.data() : map + row * shape.row() + first;
    };
    for (Index k = 1; k <= size; ++k) {
      before_[k - 1] = at(r - k);
      after_[k - 1] = at(r + k);
    }
    return {at(r), before_.data(), after_.data(), size};
  }

  // A row and the same row at all distances.
  Rows beside(const float* middle, Index channels, Index size) {
    for (Index k = 1; k <= size; ++k) {
      before_[k - 1] = middle - k * channels;
      after_[k - 1] = middle + k * channels;
    }
    return {middle, before_.data(), after_.data(), size};
  }

 private:
  std::vector<float> row_[2], zeros_;
  std::vector<const float*> before_, after_;
};

// Row r of a tile filtered down, by each of the sets of taps, into the rows of the workspace, which
// hold `size` pixels more at either end. Returns where number 0 of the tile's first pixel stands.
template <bool kRows, int kSets>
Index filter_down(Workspace& own, const float* map, const Shape& shape, const Tile& tile, Index r,
                  const Taps (&taps)[kSets], Index down, Index across, Index padding) {
  const Index c = shape.channels;
  const Index left = std::max<Index>(0, tile.left - across);
  const Index right = std::min(shape.width, tile.right + across);
  // Where column `left` stands in a row that begins with column tile.left - across.
  const Index at = (left - (tile.left - across)) * c;
  float* to[kSets];
  for (int s = 0; s < kSets; ++s) to[s] = own.row(s) + at;
  sum_rows<kRows>(own.around(map, shape, r, left * c, down, padding), taps, (right - left) * c,
                  [&](int s, Index j, Index, auto sum) { store(to[s] + j, sum); });
  auto fill = [&](Index column) {
    const Index from = source(column, shape.width, padding);
    for (int s = 0; s < kSets; ++s) {
      float* pixel = to[s] + (column - left) * c;
      if (from < 0)
        std::memset(pixel, 0, c * sizeof(float));
      else
        std::memcpy(pixel, to[s] + (from - left) * c, c * sizeof(float));
    }
  };
  for (Index column = tile.left - across; column < left; ++column) fill(column);
  for (Index column = right; column < tile.right + across; ++column) fill(column);
  return across * c;
}

template <bool kRows>
void filter(ffi::ThreadPool pool, const Shape& shape, const float* x, const Axis& down,
            const Axis& across, Index padding, float* y) {
  const Tiles tiles(shape, std::max(down.size, across.size), padding != kZero);
  in_parallel(pool, tiles.count(), [&](Index i) {
    const Tile tile = tiles[i];
    Workspace& own = Workspace::of(shape, tiles, down, across);
    const float* map = x + tile.example * shape.map();
    for (Index r = tile.top; r < tile.bottom; ++r) {
      const Index first = filter_down<kRows, 1>(own, map, shape, tile, r, {down.of(tile.example)},
                                                down.size, across.size, padding);
      float* to = y + tile.example * shape.map() + r * shape.row() + tile.left * shape.channels;
      sum_rows<kRows, 1>(own.beside(own.row(0) + first, shape.channels, across.size),
                         {across.of(tile.example)}, (tile.right - tile.left) * shape.channels,
                         [&](int, Index j, Index, auto sum) { store(to + j, sum); });
    }
  });
}

// Adds value to the numbers at `to`.
template <class V>
void accumulate(float* to, V value) {
  store(to, load<V>(to) + value);
}

// The cotangents of x and of sigma [n, c, 2] in y = filter(x), where zeros lie outside.
template <bool kRows>
void pull(ffi::ThreadPool pool, const Shape& shape, const float* x, const float* cotangent,
          const Axis (&taps)[2], const Axis (&changes)[2], float* grad_x, Index n, Index c,
          float* grad_sigma) {
  const auto& [down, across] = taps;
  const Tiles tiles(shape, std::max(down.size, across.size), false);
  const Index period = down.of(0).period;
  std::vector<float> sums(tiles.count() * 2 * period);  // of each tile, by down and by across
  in_parallel(pool, tiles.count(), [&](Index i) {
    const Tile tile = tiles[i];
    const Index example = tile.example, width = (tile.right - tile.left) * shape.channels;
    Workspace& own = Workspace::of(shape, tiles, down, across);
    float* by_down = sums.data() + i * 2 * period;
    float* by_across = by_down + period;
    for (Index r = tile.top; r < tile.bottom; ++r) {
      const Index first = filter_down<kRows, 2>(
          own, cotangent + example * shape.map(), shape, tile, r,
          {down.of(example), changes[0].of(example)}, down.size, across.size, kZero);
      const Index here = example * shape.map() + r * shape.row() + tile.left * shape.channels;
      const float* from = x + here;
      float* to = grad_x + here;
      sum_rows<kRows, 2>(own.beside(own.row(0) + first, shape.channels, across.size),
                         {across.of(example), changes[1].of(example)}, width,
                         [&](int set, Index j, Index at, auto sum) {
                           if (set == 0)
                             store(to + j, sum);
                           else
                             accumulate(by_across + at, sum * load<decltype(sum)>(from + j));
                         });
      sum_rows<kRows, 1>(own.beside(own.row(1) + first, shape.channels, across.size),
                         {across.of(example)}, width, [&](int, Index j, Index at, auto sum) {
                           accumulate(by_down + at, sum * load<decltype(sum)>(from + j));
                         });
    }
  });
  std::vector<double> total(n * c * 2);
  for (Index i = 0; i < tiles.count(); ++i) {
    const Index example = n > 1 ? tiles[i].example : 0;
    for (Index axis = 0; axis < 2; ++axis)
      for (Index j = 0; j < period; ++j)
        total[(example * c + j % c) * 2 + axis] += sums[(i * 2 + axis) * period + j];
  }
  std::copy(total.begin(), total.end(), grad_sigma);
}

// What XLA calls

using Floats = ffi::Buffer<ffi::F32>;
using Sizes = ffi::Buffer<ffi::S32>;

Shape shape_of(const Floats& x) {
  const auto sizes = x.dimensions();
  return {sizes[0], sizes[1], sizes[2], sizes[3]};
}

ffi::Error Filter(ffi::ThreadPool pool, Floats x, Floats down, Floats across, Sizes sizes,
                  Index padding, ffi::Result<Floats> y) {
  const Axis taps[2] = {{down, sizes.typed_data()[0]}, {across, sizes.typed_data()[1]}};
  const auto run = taps[0].is_rows ? filter<true> : filter<false>;
  run(pool, shape_of(x), x.typed_data(), taps[0], taps[1], padding, y->typed_data());
  return ffi::Error::Success();
}

ffi::Error Pull(ffi::ThreadPool pool, Floats x, Floats cotangent, Floats down, Floats across,
                Floats down_change, Floats across_change, Sizes sizes, ffi::Result<Floats> grad_x,
                ffi::Result<Floats> grad_sigma) {
  const Index ry = sizes.typed_data()[0], rx = sizes.typed_data()[1];
  const Axis taps[2] = {{down, ry}, {across, rx}};
  const Axis changes[2] = {{down_change, ry}, {across_change, rx}};
  const auto run = taps[0].is_rows ? pull<true> : pull<false>;
  run(pool, shape_of(x), x.typed_data(), cotangent.typed_data(), taps, changes,
      grad_x->typed_data(), down.dimensions()[0], down.dimensions()[1], grad_sigma->typed_data());
  return ffi::Error::Success();
}

}  // namespace
}  // namespace rfjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(blur_filter, rfjax::Filter,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<rfjax::Floats>()  // x [N, H, W, C]
                                  .Arg<rfjax::Floats>()  // taps along y [n, c, K]
                                  .Arg<rfjax::Floats>()  // along x [n, c, K']
                                  .Arg<rfjax::Sizes>()   // half sizes (y, x)
                                  .Attr<rfjax::Index>("padding")
                                  .Ret<rfjax::Floats>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(blur_pull, rfjax::Pull,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<rfjax::Floats>()  // x
                                  .Arg<rfjax::Floats>()  // the cotangent of y
                                  .Arg<rfjax::Floats>()  // taps along y
                                  .Arg<rfjax::Floats>()  // along x
                                  .Arg<rfjax::Floats>()  // their derivatives by sigma, along y
                                  .Arg<rfjax::Floats>()  // along x
                                  .Arg<rfjax::Sizes>()
                                  .Ret<rfjax::Floats>()    // the cotangent of x
                                  .Ret<rfjax::Floats>());  // that of sigma [n, c, 2]
