// What the kernels share: numbers in lanes of vector registers, sizes of maps, and work shared out
// over threads.

#ifndef RFJAX_LANES_H_
#define RFJAX_LANES_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace rfjax {

using Index = std::int64_t;

// Eight numbers that are added and multiplied at once. GCC and Clang make of them what the machine
// has: one register of 256 bits, or two of 128.
using Lanes = float __attribute__((vector_size(32)));

// How many numbers a `V` has, `Lanes` or a float.
template <class V>
constexpr Index kWidth = sizeof(V) / sizeof(float);

// From and to any address: a copy of so few bytes is one instruction.
template <class V>
V load(const float* from) {
  V value;
  std::memcpy(&value, from, sizeof(V));
  return value;
}

template <class V>
void store(float* to, V value) {
  std::memcpy(to, &value, sizeof(V));
}

// Calls step(j, zero) for the numbers from `begin` to `end`, by vectors and then singly: `zero` tells
// of which kind.
template <class Step>
void sweep(Index begin, Index end, const Step& step) {
  Index j = begin;
  for (; j + kWidth<Lanes> <= end; j += kWidth<Lanes>) step(j, Lanes{});
  for (; j < end; ++j) step(j, 0.0f);
}

// A sum of vectors and of single numbers.
class Sum {
 public:
  void operator+=(Lanes value) { lanes_ += value; }
  void operator+=(float value) { single_ += value; }
  float total() const {
    float sum = single_;
    for (Index i = 0; i < kWidth<Lanes>; ++i) sum += lanes_[i];
    return sum;
  }

 private:
  Lanes lanes_{};
  float single_ = 0;
};

// Threads that add to the same pixels share out the channels, in parts of two cache lines, so that
// no two of them write to the same one.
constexpr Index kChannels = 32;
inline Index parts_of(Index channels) { return (channels + kChannels - 1) / kChannels; }

// The sizes of a map [N, H, W, C].
struct Size {
  Index examples, height, width, channels;
  explicit Size(const xla::ffi::Buffer<xla::ffi::F32>& map)
      : examples(map.dimensions()[0]),
        height(map.dimensions()[1]),
        width(map.dimensions()[2]),
        channels(map.dimensions()[3]) {}
  Index row() const { return width * channels; }
  Index map() const { return height * row(); }
};

// Calls work(i) for every i below `count`, on the threads of XLA and on this one.
//
// This thread takes part and waits for what others have begun, never for what none has: a pool that
// is busy, or has no other thread, only makes it do more by itself.
template <class Work>
void in_parallel(xla::ffi::ThreadPool pool, Index count, Work work) {
  struct Shared {
    Shared(Index count, Work work) : count(count), work(work) {}
    const Index count;
    const Work work;
    std::atomic<Index> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
  };
  // Threads that come too late still read `next`, after this function has returned.
  auto shared = std::make_shared<Shared>(count, work);
  auto run = [shared] {
    for (Index i; (i = shared->next++) < shared->count;) {
      shared->work(i);
      if (++shared->done == shared->count) {
        std::lock_guard<std::mutex> lock(shared->mutex);
        shared->finished.notify_all();
      }
    }
  };
  const Index others = std::min(pool.num_threads(), count) - 1;
  for (Index i = 0; i < others; ++i) {
    auto task = run;
    pool.Schedule(std::move(task));
  }
  run();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done == shared->count; });
}

}  // namespace rfjax

#endif  // RFJAX_LANES_H_
