// Products of small matrices with a tile of pixels, in fp32: what products.cpp and filters.cpp are made
// of. A block of outputs stays in registers until all of its taps are added up.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

// Outputs of a block that together fill the registers: ROWS channels of WIDE * LANES pixels.
#if defined(__AVX512F__)
constexpr int64_t LANES = 16, WIDE = 3, ROWS = 8;
#elif defined(__AVX2__)
constexpr int64_t LANES = 8, WIDE = 3, ROWS = 4;
#else
constexpr int64_t LANES = 4, WIDE = 3, ROWS = 4;
#endif

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4)));

static inline Vector load(const float* at) { return *reinterpret_cast<const Vector*>(at); }
static inline void store(float* at, Vector values) { *reinterpret_cast<Vector*>(at) = values; }
// The first `count` of a vector.
static inline Vector load(const float* at, int64_t count) {
  if (count == LANES) return load(at);
  Vector values{};
  std::memcpy(&values, at, 4 * count);
  return values;
}
static inline void store(float* at, Vector values, int64_t count) {
  if (count == LANES) store(at, values);
  else std::memcpy(at, &values, 4 * count);
}
static inline Vector larger(Vector x, Vector y) { return x < y ? y : x; }  // NaN in x stays NaN

template <int64_t V>
using Vectors = std::integral_constant<int64_t, V>;

// Calls at(V, p, few) for all pixels: V vectors of them from p on, at most MOST, or for V = 0 the first
// `few` of one.
template <int64_t MOST, typename At>
static inline void for_vectors(int64_t pixels, At at) {
  int64_t p = 0;
  for (; p + MOST * LANES <= pixels; p += MOST * LANES) at(Vectors<MOST>(), p, LANES);
  for (; MOST > 2 && p + 2 * LANES <= pixels; p += 2 * LANES) at(Vectors<2>(), p, LANES);
  if (p + LANES <= pixels) at(Vectors<1>(), p, LANES), p += LANES;
  if (p == pixels) return;
  if (pixels < LANES) at(Vectors<0>(), 0, pixels);
  else at(Vectors<1>(), pixels - LANES, LANES);  // some of them once more
}

// Room for so many numbers, the thread's own: several may work at a time.
static inline float* scratch(size_t count) {
  static thread_local std::vector<float> room;
  if (room.size() < count) room.resize(count);
  return room.data();
}

// All steps and offsets count floats.
struct Factors {
  int64_t taps;
  const float* weights;  // [batches or 1][blocks of ROWS outputs][taps][ROWS]
  int64_t weights_step;  // from a batch to the next
  const float* x;
  int64_t x_step;
  const int64_t* offsets;  // [taps], of a tap's pixels from x of its batch
};

// PRODUCT, by its factors: out[b][o][p] = bias[b][o] + sum over k of weights[b][o][k] *
// x[b][offsets[k] + p], the sum over the taps of all factors.
// THREE_TAPS: a convolution along time, which the batches are, of x from a frame before out to one behind
// it. Weights are [images][blocks of ROWS outputs][taps][ROWS] (see temporal.h), weights_step goes from an
// image to the next, the bias is the same for all frames.
// CHANGES: the same by two taps on the changes from two frames before to a frame and from there to two
// behind, of x from two frames before out to two behind it.
// POOLING: the largest of every 2 x 2 pixels of x, rows of so many columns; offsets are those of outputs.
enum Kind : int64_t { PRODUCT, THREE_TAPS, CHANGES, POOLING };

struct Step {
  int64_t kind, batches, outputs, pixels, columns;
  float* out;
  int64_t out_step, out_row;  // from a batch and from an output to the next
  const float* bias;  // [batches or 1][outputs], or null
  int64_t bias_step, rectified;
  int64_t count;
  Factors factors[2];
};

// Adds to the sums of ROWS outputs the products of weights and taps, COUNT vectors from at(k) on or the
// first `few` of one.
template <int64_t COUNT, typename At>
__attribute__((always_inline)) static inline void add_products(
    Vector (&sums)[ROWS][COUNT], int64_t taps, const float* weights, At at, int64_t few) {
  for (int64_t k = 0; k < taps; k++, weights += ROWS) {
    const float* from = at(k);
    Vector values[COUNT];
    for (int64_t v = 0; v < COUNT; v++) values[v] = load(from + v * LANES, few);
    for (int64_t row = 0; row < ROWS; row++)
      for (int64_t v = 0; v < COUNT; v++) sums[row][v] += weights[row] * values[v];
  }
}

static inline Vector finished(const Step& step, Vector sum, const float* bias) {
  if (bias) sum += *bias;
  return step.rectified ? larger(sum, Vector{}) : sum;
}

// Outputs o to o + ROWS of a batch at V vectors of pixels from p on.
template <int64_t V>
static void block(const Step& step, int64_t b, int64_t o, int64_t p, int64_t few) {
  constexpr int64_t COUNT = V ? V : 1;
  if (V) few = LANES;  // known to the compiler
  Vector sums[ROWS][COUNT] = {};
  for (int64_t i = 0; i < step.count; i++) {
    const Factors& factors = step.factors[i];
    const float* weights = factors.weights + b * factors.weights_step + o * factors.taps;
    const float* x = factors.x + b * factors.x_step + p;
    auto at = [&](int64_t k) { return x + factors.offsets[k]; };
    add_products(sums, factors.taps, weights, at, few);
  }
  const float* bias = step.bias ? step.bias + b * step.bias_step + o : nullptr;
  float* out = step.out + b * step.out_step + o * step.out_row + p;
#pragma GCC unroll 8  // only so the sums stay in registers
  for (int64_t row = 0; row < ROWS; row++, out += step.out_row)
    if (row < step.outputs - o)
      for (int64_t v = 0; v < COUNT; v++)
        store(out + v * LANES, finished(step, sums[row][v], bias ? bias + row : bias), few);
}

static inline void multiply(const Step& step, int64_t b) {
  for_vectors<WIDE>(step.pixels, [&](auto V, int64_t p, int64_t few) {
    for (int64_t o = 0; o < step.outputs; o += ROWS) block<V>(step, b, o, p, few);
  });
}
