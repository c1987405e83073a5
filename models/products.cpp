// What `--compile` has on a CPU in place of torch's operations: the steps of a tape on a tile of pixels
// in fp32 (see models/products.py). Products keep a block of outputs in registers until all of its taps
// are added up.

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
typedef int32_t Indices __attribute__((vector_size(4 * LANES), aligned(4)));

static inline Vector load(const float* at) { return *reinterpret_cast<const Vector*>(at); }
static inline void store(float* at, Vector values) { *reinterpret_cast<Vector*>(at) = values; }
static inline Vector load(const float* at, int64_t count) {
  Vector values{};
  std::memcpy(&values, at, 4 * count);
  return values;
}
static inline void store(float* at, Vector values, int64_t count) {
  std::memcpy(at, &values, 4 * count);
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

// A product, by its factors: out[b][o][p] = max(floor[b][o], sum over k of weights[b][o][k] *
// x[b][offsets[k] + p]), the sum over the taps of all factors. Or the difference or the larger one of
// two arrays: with the x of the factors, and offsets of their outputs.
enum Kind : int64_t { PRODUCT, DIFFERENCE, LARGER };

struct Step {
  int64_t kind, batches, outputs, pixels;
  float* out;
  int64_t out_step, out_row;  // from a batch and from an output to the next
  const float* floor;  // [batches or 1][outputs], or null
  int64_t floor_step;
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
  const float* floor = step.floor ? step.floor + b * step.floor_step + o : nullptr;
  float* out = step.out + b * step.out_step + o * step.out_row + p;
#pragma GCC unroll 8  // only so the sums stay in registers
  for (int64_t row = 0; row < ROWS; row++, out += step.out_row)
    if (row < step.outputs - o)
      for (int64_t v = 0; v < COUNT; v++) {
        const Vector sum = floor ? larger(sums[row][v], Vector{} + floor[row]) : sums[row][v];
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
  for (; p + LANES <= pixels; p += LANES) all(block<1>, p);
  if (p == pixels) return;
  if (pixels < LANES) all(block<0>, 0);
  else all(block<1>, pixels - LANES);  // some of them once more
}

template <typename Operation>
static void combine(const Step& step, int64_t b, Operation operation) {
  const Factors &first = step.factors[0], &second = step.factors[1];
  for (int64_t o = 0; o < step.outputs; o++) {
    const float* x = first.x + b * first.x_step + first.offsets[o];
    const float* y = second.x + b * second.x_step + second.offsets[o];
    float* out = step.out + b * step.out_step + o * step.out_row;
    const float floor = step.floor ? step.floor[b * step.floor_step + o] : 0;
    for (int64_t p = 0; p < step.pixels; p++) {
      const float value = operation(x[p], y[p]);
      out[p] = step.floor && value < floor ? floor : value;
    }
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

// The end of a network on a tile: out[t][r][p] = bias[t] + sum over c of weights[c] * max(floor[c][t],
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
  const float* floor;  // [channels][frames]
  const float* weights;  // [channels]
  const float* bias;  // [frames]
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
    Vector total = Vector{} + end.bias[t];
    for (int64_t c = 0; c < end.channels; c++) {
      const int64_t line = c * end.frames + t;
      const float* at = end.sum + line * pixels + row * end.columns + p;
      Vector value = few == LANES ? load(at) : load(at, few);
      for (int64_t i = 0; i < end.count; i++) {
        const float* x = maps[i].x + line * end.maps[i].columns;
        const Vector here = maps[i].few == LANES ? load(x) : load(x, maps[i].few);
        const Vector left = pick(here, maps[i].left);
        value += left + maps[i].share * (pick(here, maps[i].right) - left);
      }
      total += end.weights[c] * larger(value, Vector{} + end.floor[line]);
    }
    float* out = end.out + t * end.out_frame + row * end.out_row + p;
    if (few == LANES) store(out, total);
    else store(out, total, few);
  }
}

extern "C" void end(const End* end) {
  for (int64_t row = 0; row < end->rows; row++)
    for (int64_t p = 0; p < end->columns; p += LANES)
      end_at(*end, row, p, std::min(LANES, end->columns - p));
}
