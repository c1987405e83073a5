// What `--compile` has on a CPU in place of torch's operations: the steps of a tape on a tile of pixels
// in fp32 (see models/products.py).

#include "products.h"
#include "temporal.h"

typedef int32_t Indices __attribute__((vector_size(4 * LANES), aligned(4)));

static void pool(const Step& step, int64_t b) {
  const Factors& factors = step.factors[0];
  const int64_t columns = step.columns, count = columns / 2;
  auto most = [](float x, float y) { return x >= y || x != x ? x : y; };  // NaN if either is
  for (int64_t o = 0; o < step.outputs; o++) {
    const float* x = factors.x + b * factors.x_step + factors.offsets[o];
    float* out = step.out + b * step.out_step + o * step.out_row;
    for (float* end = out + step.pixels; out < end; out += count, x += 2 * columns)
      for (int64_t p = 0; p < count; p++) {
        const float* y = x + 2 * p;
        out[p] = most(most(y[0], y[1]), most(y[columns], y[columns + 1]));
      }
  }
}

// Vectors of pixels whose images stay near; with ROWS they make sums enough that none is waited for.
constexpr int64_t NARROW = ROWS == 8 ? 2 : 3;

// Frames t, t + APART, ... of what is given, at V vectors of pixels from p on.
template <typename Taps, int64_t V>
static void convolve_group(const Step& step, int64_t t, int64_t p, int64_t few) {
  constexpr int64_t COUNT = V ? V : 1, WIDTH = COUNT * LANES, IMAGES = Taps::IMAGES;
  if (V) few = LANES;  // known to the compiler
  const Factors& factors = step.factors[0];
  const int64_t image = factors.taps * WIDTH, product = ROWS * WIDTH;  // from one to the next
  float* images = scratch(IMAGES * (image + product));  // [IMAGES][taps][WIDTH]
  float* products = images + IMAGES * image;  // [IMAGES][ROWS][WIDTH]
  const float* seen[SEEN];
  see<Taps>(factors.x + p, factors.x_step, t, step.batches, seen);
  for (int64_t k = 0; k < factors.taps; k++)
    for (int64_t v = 0; v < COUNT; v++) {
      Vector x[SEEN], made[IMAGES];
      for (int64_t f = 0; f < SEEN; f++) x[f] = load(seen[f] + factors.offsets[k] + v * LANES, few);
      Taps::transform(x, made);
      for (int64_t n = 0; n < IMAGES; n++)
        store(images + n * image + k * WIDTH + v * LANES, made[n]);
    }
  for (int64_t o = 0; o < step.outputs; o += ROWS) {
    for (int64_t n = 0; n < IMAGES; n++) {
      Vector sums[ROWS][COUNT] = {};
      const float* weights = factors.weights + n * factors.weights_step + o * factors.taps;
      auto at = [&](int64_t k) { return images + n * image + k * WIDTH; };
      add_products(sums, factors.taps, weights, at, LANES);
#pragma GCC unroll 8  // only so the sums stay in registers
      for (int64_t row = 0; row < ROWS; row++)
        for (int64_t v = 0; v < COUNT; v++)
          store(products + n * product + row * WIDTH + v * LANES, sums[row][v]);
    }
    for (int64_t row = 0; row < std::min(ROWS, step.outputs - o); row++)
      for (int64_t v = 0; v < COUNT; v++) {
        Vector y[IMAGES];
        for (int64_t n = 0; n < IMAGES; n++)
          y[n] = load(products + n * product + row * WIDTH + v * LANES);
        Vector given[GIVEN];
        output_transform<Taps>(y, given);
        const float* bias = step.bias ? step.bias + o + row : nullptr;
        float* out = step.out + (o + row) * step.out_row + p + v * LANES;
        for (int64_t m = 0, frame = t; m < GIVEN; m++, frame += Taps::APART) {
          if (frame >= step.batches) break;
          store(out + frame * step.out_step, finished(step, given[m], bias), few);
        }
      }
  }
}

template <typename Taps>
static void convolve(const Step& step) {
  for_vectors<NARROW>(step.pixels, [&](auto V, int64_t p, int64_t few) {
    for_groups<Taps>(step.batches, [&](int64_t t) { convolve_group<Taps, V>(step, t, p, few); });
  });
}

extern "C" const int64_t block_rows = ROWS, piece = 2 * WIDE * LANES;

extern "C" void run(const Step* const* steps, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    const Step& step = *steps[i];
    if (step.kind == THREE_TAPS) convolve<ThreeTaps>(step);
    else if (step.kind == CHANGES) convolve<Changes>(step);
    else for (int64_t b = 0; b < step.batches; b++)
      if (step.kind == PRODUCT) multiply(step, b);
      else pool(step, b);
  }
}

constexpr int64_t MAPS = 2;  // of smaller size, at most

// The end of a network on a tile: out[t][r][p] = bias + sum over c of weights[c] * max(0,
// sum[c][t][r][p] + what maps of smaller size have there, between two of their columns).
struct Map {
  const float* x;  // [rows][channels][frames][columns]
  int64_t columns;
  const int32_t* first;  // [columns of the tile], the column left of each
  const float* share;  // that of the next column
};

struct End {
  int64_t channels, frames, rows, columns;
  const float* sum;  // [channels][frames][rows][columns]
  const float* weights;  // [channels]
  const float* bias;  // [1]
  float* out;
  int64_t out_frame, out_row;
  int64_t count;
  Map maps[MAPS];
};

static inline Vector pick(Vector values, Indices at) {
#if defined(__clang__)
  Vector picked;
  for (int64_t i = 0; i < LANES; i++) picked[i] = values[at[i]];
  return picked;
#else
  return __builtin_shuffle(values, at);
#endif
}

// Where a vector of columns lies between those of a map: LANES of these from `first` on.
struct Between {
  int64_t first;
  Indices left, right;
  Vector share;

  // The first `few` of a vector of columns from p on.
  void find(const Map& map, int64_t p, int64_t few) {
    first = std::max<int64_t>(0, std::min<int64_t>(map.first[p], map.columns - LANES));
    for (int64_t l = 0; l < LANES; l++) {
      const int64_t column = p + std::min(l, few - 1), at = map.first[column];
      left[l] = at - first;
      right[l] = std::min(at + 1, map.columns - 1) - first;
      share[l] = map.share[column];
    }
  }
};

constexpr int64_t BROAD = 64 / LANES;  // vectors of columns at a time: lines of memory are read whole

// At V vectors of columns from p on or, for V = 0, the first `few` of one.
template <int64_t V>
static void end_at(const End& end, int64_t p, int64_t few) {
  constexpr int64_t COUNT = V ? V : 1;
  if (V) few = LANES;  // known to the compiler
  Between places[MAPS][COUNT];
  for (int64_t i = 0; i < end.count; i++)
    for (int64_t v = 0; v < COUNT; v++) places[i][v].find(end.maps[i], p + v * LANES, few);
  const int64_t pixels = end.rows * end.columns;
  for (int64_t row = 0; row < end.rows; row++)
    for (int64_t t = 0; t < end.frames; t++) {
      Vector total[COUNT];
      for (int64_t v = 0; v < COUNT; v++) total[v] = Vector{} + *end.bias;
      for (int64_t c = 0; c < end.channels; c++) {
        const int64_t line = c * end.frames + t;
        const float* sum = end.sum + line * pixels + row * end.columns + p;
        Vector values[COUNT];
        for (int64_t v = 0; v < COUNT; v++) values[v] = load(sum + v * LANES, few);
        for (int64_t i = 0; i < end.count; i++) {
          const Map& map = end.maps[i];
          const float* x = map.x + (row * end.channels * end.frames + line) * map.columns;
          for (int64_t v = 0; v < COUNT; v++) {
            const Between& place = places[i][v];
            const Vector here = load(x + place.first, std::min(LANES, map.columns));
            const Vector left = pick(here, place.left);
            values[v] += left + place.share * (pick(here, place.right) - left);
          }
        }
        for (int64_t v = 0; v < COUNT; v++) total[v] += end.weights[c] * larger(values[v], Vector{});
      }
      float* out = end.out + t * end.out_frame + row * end.out_row + p;
      for (int64_t v = 0; v < COUNT; v++) store(out + v * LANES, total[v], few);
    }
}

extern "C" void end(const End* end) {
  for_vectors<BROAD>(end->columns, [&](auto V, int64_t p, int64_t few) { end_at<V>(*end, p, few); });
}
