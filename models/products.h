// Products of small matrices with a tile of pixels, in fp32: what products.cpp and filters.cpp are made
// of. A block of outputs stays in registers until all of its taps are added up.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

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

// All steps and offsets count floats.
struct Factors {
  int64_t taps;
  const float* weights;  // [batches or 1][blocks of ROWS outputs][taps][ROWS]
  int64_t weights_step;  // from a batch to the next
  const float* x;
  int64_t x_step;
  const int64_t* offsets;  // [taps], of a tap's pixels from x of its batch
};

// A product, by its factors: out[b][o][p] = bias[b][o] + sum over k of weights[b][o][k] *
// x[b][offsets[k] + p], the sum over the taps of all factors; perhaps rectified. Or the difference or
// the larger one of two arrays: with the x of the factors, and offsets of their outputs.
enum Kind : int64_t { PRODUCT, DIFFERENCE, LARGER };

struct Step {
  int64_t kind, batches, outputs, pixels;
  float* out;
  int64_t out_step, out_row;  // from a batch and from an output to the next
  const float* bias;  // [batches or 1][outputs], or null
  int64_t bias_step, rectified;
  int64_t count;
  Factors factors[2];
};

// Outputs o to o + ROWS of a batch at V vectors of pixels from p on; V = 0: the first `few` of one.
template <int64_t V>
static void block(const Step& step, int64_t b, int64_t o, int64_t p, int64_t few) {
  constexpr int64_t COUNT = V ? V : 1;
  Vector sums[ROWS][COUNT] = {};
  for (int64_t i = 0; i < step.count; i++) {
    const Factors& factors = step.factors[i];
    const float* weights = factors.weights + b * factors.weights_step + o * factors.taps;
    const float* x = factors.x + b * factors.x_step + p;
    for (int64_t k = 0; k < factors.taps; k++, weights += ROWS) {
      const float* from = x + factors.offsets[k];
      Vector values[COUNT];
      for (int64_t v = 0; v < COUNT; v++) values[v] = V ? load(from + v * LANES) : load(from, few);
      for (int64_t row = 0; row < ROWS; row++)
        for (int64_t v = 0; v < COUNT; v++) sums[row][v] += weights[row] * values[v];
    }
  }
  const float* bias = step.bias ? step.bias + b * step.bias_step + o : nullptr;
  float* out = step.out + b * step.out_step + o * step.out_row + p;
#pragma GCC unroll 8  // only so the sums stay in registers
  for (int64_t row = 0; row < ROWS; row++, out += step.out_row)
    if (row < step.outputs - o)
      for (int64_t v = 0; v < COUNT; v++) {
        Vector sum = sums[row][v];
        if (bias) sum += bias[row];
        if (step.rectified) sum = larger(sum, Vector{});
        if (V) store(out + v * LANES, sum);
        else store(out, sum, few);
      }
}

static void multiply(const Step& step, int64_t b) {
  const int64_t pixels = step.pixels;
  auto all = [&](auto at, int64_t p) {
    for (int64_t o = 0; o < step.outputs; o += ROWS) at(step, b, o, p, pixels);
  };
  int64_t p = 0;
  for (; p + WIDE * LANES <= pixels; p += WIDE * LANES) all(block<WIDE>, p);
  if (p + 2 * LANES <= pixels) all(block<2>, p), p += 2 * LANES;
  if (p + LANES <= pixels) all(block<1>, p), p += LANES;
  if (p == pixels) return;
  if (pixels < LANES) all(block<0>, 0);
  else all(block<1>, pixels - LANES);  // some of them once more
}
