// What `--compile` has on a CPU in place of torch's operations: the steps of a tape on a tile of pixels
// in fp32 (see models/products.py).

#include "products.h"

typedef int32_t Indices __attribute__((vector_size(4 * LANES), aligned(4)));

template <typename Operation>
static void combine(const Step& step, int64_t b, Operation operation) {
  const Factors &first = step.factors[0], &second = step.factors[1];
  for (int64_t o = 0; o < step.outputs; o++) {
    const float* x = first.x + b * first.x_step + first.offsets[o];
    const float* y = second.x + b * second.x_step + second.offsets[o];
    float* out = step.out + b * step.out_step + o * step.out_row;
    for (int64_t p = 0; p < step.pixels; p++) out[p] = operation(x[p], y[p]);
  }
}

extern "C" const int64_t block_rows = ROWS;

extern "C" void run(const Step* const* steps, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    for (int64_t b = 0; b < steps[i]->batches; b++)
      if (steps[i]->kind == PRODUCT) multiply(*steps[i], b);
      else if (steps[i]->kind == DIFFERENCE)
        combine(*steps[i], b, [](float x, float y) { return x - y; });
      else combine(*steps[i], b, [](float x, float y) { return x >= y || x != x ? x : y; });
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
