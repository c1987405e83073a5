// What `--compile` has on a CPU in place of torch's operations: the steps of a tape on a tile of pixels
// in fp32 (see models/products.py).

#include "products.h"

typedef int32_t Indices __attribute__((vector_size(4 * LANES), aligned(4)));

static void subtract(const Step& step, int64_t b) {
  const Factors &first = step.factors[0], &second = step.factors[1];
  for (int64_t o = 0; o < step.outputs; o++) {
    const float* x = first.x + b * first.x_step + first.offsets[o];
    const float* y = second.x + b * second.x_step + second.offsets[o];
    float* out = step.out + b * step.out_step + o * step.out_row;
    for (int64_t p = 0; p < step.pixels; p++) out[p] = x[p] - y[p];
  }
}

static void pool(const Step& step, int64_t b) {
  const Factors& factors = step.factors[0];
  const int64_t columns = factors.taps, count = columns / 2;
  auto larger = [](float x, float y) { return x >= y || x != x ? x : y; };  // NaN if either is
  for (int64_t o = 0; o < step.outputs; o++) {
    const float* x = factors.x + b * factors.x_step + factors.offsets[o];
    float* out = step.out + b * step.out_step + o * step.out_row;
    for (float* end = out + step.pixels; out < end; out += count, x += 2 * columns)
      for (int64_t p = 0; p < count; p++) {
        const float* y = x + 2 * p;
        out[p] = larger(larger(y[0], y[1]), larger(y[columns], y[columns + 1]));
      }
  }
}

// A convolution of three taps along time by fewer products (Toom, Cook; see FewerProducts in
// models/prepared_convolutions.py): GIVEN frames out of SEEN cost IMAGES products, half of what is written
// down. Points are 0, 1, -1, 2, -2 and infinity: of a pair of them the even and the odd powers serve both.
constexpr int64_t SEEN = 6, IMAGES = 6, GIVEN = 4, NARROW = 2;

// Frames t to t + GIVEN, or up to the last, at V vectors of pixels from p on.
template <int64_t V>
static void convolve_group(const Step& step, int64_t t, int64_t p, int64_t few) {
  constexpr int64_t COUNT = V ? V : 1, WIDTH = COUNT * LANES;
  const Factors& factors = step.factors[0];
  const int64_t image = factors.taps * WIDTH, result = ROWS * WIDTH;  // steps from one to the next
  float* images = scratch(IMAGES * (image + result));  // [IMAGES][taps][WIDTH]
  float* results = images + IMAGES * image;  // [IMAGES][ROWS][WIDTH]
  const float* seen[SEEN];
  for (int64_t f = 0; f < SEEN; f++)
    seen[f] = factors.x + std::min(t + f, step.batches + 1) * factors.x_step + p;
  for (int64_t k = 0; k < factors.taps; k++)
    for (int64_t v = 0; v < COUNT; v++) {
      Vector x[SEEN];
      for (int64_t f = 0; f < SEEN; f++) x[f] = load(seen[f] + factors.offsets[k] + v * LANES, few);
      const Vector one = x[4] - 4 * x[2], one_odd = x[3] - 4 * x[1];
      const Vector two = x[4] - x[2], two_odd = 2 * (x[3] - x[1]);
      float* to = images + k * WIDTH + v * LANES;
      store(to, 4 * x[0] - 5 * x[2] + x[4]);
      store(to + image, one + one_odd);
      store(to + 2 * image, one - one_odd);
      store(to + 3 * image, two + two_odd);
      store(to + 4 * image, two - two_odd);
      store(to + 5 * image, 4 * x[1] - 5 * x[3] + x[5]);
    }
  const int64_t frames = std::min(GIVEN, step.batches - t);
  for (int64_t o = 0; o < step.outputs; o += ROWS) {
    for (int64_t n = 0; n < IMAGES; n++) {
      Vector sums[ROWS][COUNT] = {};
      const float* weights = factors.weights + n * factors.weights_step + o * factors.taps;
      auto at = [&](int64_t k) { return images + n * image + k * WIDTH; };
      add_products(sums, factors.taps, weights, at, LANES);
#pragma GCC unroll 8  // only so the sums stay in registers
      for (int64_t row = 0; row < ROWS; row++)
        for (int64_t v = 0; v < COUNT; v++)
          store(results + n * result + row * WIDTH + v * LANES, sums[row][v]);
    }
    for (int64_t row = 0; row < std::min(ROWS, step.outputs - o); row++)
      for (int64_t v = 0; v < COUNT; v++) {
        Vector y[IMAGES];
        for (int64_t n = 0; n < IMAGES; n++)
          y[n] = load(results + n * result + row * WIDTH + v * LANES);
        const Vector one = y[1] + y[2], one_odd = y[1] - y[2];
        const Vector two = y[3] + y[4], two_odd = y[3] - y[4];
        const Vector given[GIVEN] = {y[0] + one + two, one_odd + 2 * two_odd, one + 4 * two,
                                     one_odd + 8 * two_odd + y[5]};
        float* out = step.out + t * step.out_step + (o + row) * step.out_row + p + v * LANES;
        for (int64_t m = 0; m < GIVEN; m++, out += step.out_step) {
          if (m == frames) break;
          store(out, finished(step, given[m], step.bias ? step.bias + o + row : step.bias), few);
        }
      }
  }
}

static void convolve(const Step& step) {
  for_vectors<NARROW>(step.pixels, [&](auto V, int64_t p, int64_t few) {
    for (int64_t t = 0; t < step.batches; t += GIVEN) convolve_group<V>(step, t, p, few);
  });
}

extern "C" const int64_t block_rows = ROWS;

extern "C" void run(const Step* const* steps, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    const Step& step = *steps[i];
    if (step.kind == CONVOLUTION) convolve(step);
    else for (int64_t b = 0; b < step.batches; b++)
      if (step.kind == PRODUCT) multiply(step, b);
      else if (step.kind == DIFFERENCE) subtract(step, b);
      else pool(step, b);
  }
}

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
  Map maps[2];
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

// At the first `few` of a vector of columns from p on.
static void end_at(const End& end, int64_t row, int64_t p, int64_t few) {
  struct {
    Indices left, right;
    Vector share;
    const float* x;
    int64_t few;
  } maps[2];
  for (int64_t i = 0; i < end.count; i++) {
    const Map& map = end.maps[i];
    const int64_t first = std::max<int64_t>(0, std::min<int64_t>(map.first[p], map.columns - LANES));
    maps[i].few = std::min(LANES, map.columns);
    for (int64_t l = 0; l < LANES; l++) {
      const int64_t at = map.first[p + std::min(l, few - 1)];
      maps[i].left[l] = at - first;
      maps[i].right[l] = std::min(at + 1, map.columns - 1) - first;
      maps[i].share[l] = map.share[p + std::min(l, few - 1)];
    }
    maps[i].x = map.x + row * end.channels * end.frames * map.columns + first;
  }
  const int64_t pixels = end.rows * end.columns;
  for (int64_t t = 0; t < end.frames; t++) {
    Vector total = Vector{} + *end.bias;
    for (int64_t c = 0; c < end.channels; c++) {
      const int64_t line = c * end.frames + t;
      const float* at = end.sum + line * pixels + row * end.columns + p;
      Vector value = load(at, few);
      for (int64_t i = 0; i < end.count; i++) {
        const float* x = maps[i].x + line * end.maps[i].columns;
        const Vector here = load(x, maps[i].few);
        const Vector left = pick(here, maps[i].left);
        value += left + maps[i].share * (pick(here, maps[i].right) - left);
      }
      total += end.weights[c] * larger(value, Vector{});
    }
    float* out = end.out + t * end.out_frame + row * end.out_row + p;
    store(out, total, few);
  }
}

extern "C" void end(const End* end) {
  for (int64_t row = 0; row < end->rows; row++)
    for (int64_t p = 0; p < end->columns; p += LANES)
      end_at(*end, row, p, std::min(LANES, end->columns - p));
}
