// Convolutions of 3 x 3 taps in space and several in time by fewer products, on a few rows at a time, in
// arrays that stay in the cache (see models/filters.py).

#include "products.h"
#include "temporal.h"

// HIGH rows of WIDTH columns at most.
constexpr int64_t HIGH = 4, WIDTH = 100, GIVEN_PITCH = 112;
// Frames are taken in groups: 4 are given of 6 that are seen. So are rows: of 4 of them 4 images are
// made, and of these 2 rows. An image has 2 lines then, one right behind the other.
constexpr int64_t ROW_IMAGES = 4, LINES = 2, AREA = 208;
static_assert(AREA >= LINES * (WIDTH + 4) && AREA % LANES == 0);
static_assert(GIVEN_PITCH >= WIDTH && GIVEN_PITCH % LANES == 0);

// Rows of an array [frames][channels][ring][columns]: row r of them lies at (first + r) % ring.
struct Rows {
  const float* at;
  int64_t frame, channel, row;  // steps, in floats
  int64_t first, ring;
  int64_t offset(int64_t r) const { return (first + r) % ring * row; }
};

// out[t][o][r][p] = max(0, bias[o] + the convolution of x). All steps count floats.
struct Filter {
  int64_t apart;  // frames from a tap to the next: 1, of three taps, or 2, of the differences
  int64_t reach;  // pixels from a tap to the next: 1 or 2
  int64_t frames, channels, outputs, rows, columns;
  const float* weights;  // [images][ROW_IMAGES][blocks of ROWS outputs][channels][3][ROWS]
  const float* bias;
  float* out;
  int64_t out_frame, out_channel, out_row;
  // If not 0, the outputs of a mix, which go to out instead: of a product of all outputs at a pixel
  // plus one of what another array has there.
  int64_t mix_outputs, other_channels;
  const float *mix_weights, *other_weights;  // [blocks of ROWS outputs][channels][ROWS]
  const float* mix_bias;  // [mix_outputs]
  Rows x, other;  // x: rows + 2 reach of them, of columns + 2 reach, in frames + 2 apart
};

template <typename Taps>
struct Work {
  static constexpr int64_t IMAGES = Taps::IMAGES;
  const Filter& filter;
  const int64_t reach, channels, outputs, rows, columns, blocks, lines, pitch, pixels;
  // [1 or 2 along the rows][channels][IMAGES][AREA], [outputs][IMAGES][ROW_IMAGES][AREA] and
  // [GIVEN][outputs][HIGH][GIVEN_PITCH].
  float *images, *results, *given;
  std::vector<int64_t> taps, given_channels, other_channels;  // offsets
  int64_t t;  // of the first frame of a group
  const float* seen[SEEN];

  explicit Work(const Filter& filter)
      : filter(filter),
        reach(filter.reach),
        channels(filter.channels),
        outputs(filter.outputs),
        rows(filter.rows),
        columns(filter.columns),
        blocks((outputs + ROWS - 1) / ROWS),
        lines(reach == 1 ? (rows + 1) / 2 : std::min(rows, LINES)),
        pitch(columns + 2 * reach),
        pixels(((lines - 1) * pitch + columns + LANES - 1) / LANES * LANES) {
    const int64_t of_images = 2 * channels * IMAGES * AREA + LANES;  // products read beyond the last
    const int64_t of_results = blocks * ROWS * IMAGES * ROW_IMAGES * AREA;
    const int64_t of_given = filter.mix_outputs ? GIVEN * outputs * HIGH * GIVEN_PITCH : 0;
    images = scratch(of_images + of_results + of_given);
    results = images + of_images, given = results + of_results;
    for (int64_t c = 0; c < channels; c++)
      for (int64_t i = 0; i < 3; i++) taps.push_back(c * IMAGES * AREA + i * reach);
    for (int64_t c = 0; c < outputs; c++) given_channels.push_back(c * HIGH * GIVEN_PITCH);
    for (int64_t c = 0; c < filter.other_channels; c++)
      other_channels.push_back(c * filter.other.channel);
  }

  void run() {
    for_groups<Taps>(filter.frames, [&](int64_t first) {
      t = first;
      group();
    });
  }

  // Frames t, t + APART, ... of what is given.
  void group() {
    see<Taps>(filter.x.at, filter.x.frame, t, filter.frames, seen);
    mix_frames<0, 2>([](Vector x, Vector y) { return x - y; });
    multiply_images(0, images);
    mix_frames<1, 2>([](Vector x, Vector y) { return x + y; },
                     [](Vector x, Vector y) { return y - x; });
    multiply_images(1, images);
    multiply_images(2, images + channels * IMAGES * AREA);
    mix_frames<1, 3>([](Vector x, Vector y) { return x - y; });
    multiply_images(3, images);
    mix_results();
    if (filter.mix_outputs) mix_given();
  }

  // The first row of frames of a line of images; the next ones are `reach` rows apart.
  int64_t first_row(int64_t line) const { return reach == 1 ? 2 * line : line; }

  // Images of what operations make of two of four rows: the input transform of Winograd's F(2, 3)
  // along the rows, then the one along time.
  template <int64_t ONE, int64_t OTHER, typename... Operation>
  void mix_frames(Operation... operations) {
    for (int64_t c = 0; c < channels; c++)
      for (int64_t line = 0; line < lines; line++) {
        auto place = [&](int64_t i) {
          const int64_t r = std::min(first_row(line) + i * reach, rows + 2 * reach - 1);
          return c * filter.x.channel + filter.x.offset(r);
        };
        const int64_t one = place(ONE), other = place(OTHER);
        float* to = images + c * IMAGES * AREA + line * pitch;
        for_vectors<1>(pitch, [&](auto, int64_t p, int64_t few) {
          Vector first[SEEN], second[SEEN];
          for (int64_t f = 0; f < SEEN; f++)
            first[f] = load(seen[f] + one + p, few), second[f] = load(seen[f] + other + p, few);
          float* image = to + p;
          auto make = [&](auto operation) {
            Vector values[SEEN], made[IMAGES];
            for (int64_t f = 0; f < SEEN; f++) values[f] = operation(first[f], second[f]);
            Taps::transform(values, made);
            for (int64_t n = 0; n < IMAGES; n++) store(image + n * AREA, made[n], few);
            image += channels * IMAGES * AREA;
          };
          (make(operations), ...);
        });
      }
  }

  void multiply_images(int64_t q, const float* x) {
    for (int64_t n = 0; n < IMAGES; n++) {
      Step step{};
      step.outputs = blocks * ROWS, step.pixels = pixels;
      step.out = results + (n * ROW_IMAGES + q) * AREA, step.out_row = IMAGES * ROW_IMAGES * AREA;
      step.count = 1;
      const float* weights = filter.weights + (n * ROW_IMAGES + q) * blocks * taps.size() * ROWS;
      step.factors[0] = factors(taps, weights, x + n * AREA);
      multiply(step, 0);
    }
  }

  static Factors factors(const std::vector<int64_t>& offsets, const float* weights, const float* x) {
    return {int64_t(offsets.size()), weights, 0, x, 0, offsets.data()};
  }

  // The output transforms.
  void mix_results() {
    const int64_t frames = std::min(GIVEN, (filter.frames - t + Taps::APART - 1) / Taps::APART);
    float* out[GIVEN];
    int64_t out_channel = filter.out_channel, out_row = filter.out_row;
    for (int64_t m = 0; m < GIVEN; m++)
      out[m] = filter.out + (t + std::min(m, frames - 1) * Taps::APART) * filter.out_frame;
    if (filter.mix_outputs) {
      out_row = GIVEN_PITCH, out_channel = HIGH * GIVEN_PITCH;
      for (int64_t m = 0; m < GIVEN; m++) out[m] = given + m * outputs * out_channel;
    }
    for (int64_t o = 0; o < outputs; o++)
      for (int64_t line = 0; line < lines; line++) {
        const int64_t r = first_row(line);
        const bool second = r + reach < rows;
        const int64_t upper_at = o * out_channel + r * out_row;
        const int64_t lower_at = upper_at + reach * out_row;
        const float bias = filter.bias[o];
        const float* from = results + o * IMAGES * ROW_IMAGES * AREA + line * pitch;
        for_vectors<1>(columns, [&](auto, int64_t p, int64_t few) {
          Vector upper[IMAGES], lower[IMAGES];
          for (int64_t n = 0; n < IMAGES; n++) {
            const float* x = from + n * ROW_IMAGES * AREA + p;
            const Vector middle = load(x + AREA), other = load(x + 2 * AREA);
            upper[n] = load(x) + middle + other;
            lower[n] = middle - other - load(x + 3 * AREA);
          }
          auto mix = [&](const Vector* products, int64_t at) {
            Vector sums[GIVEN];
            output_transform<Taps>(products, sums);
            for (int64_t m = 0; m < GIVEN; m++) {
              if (m == frames) break;
              store(out[m] + at, larger(sums[m] + bias, Vector{}), few);
            }
          };
          mix(upper, upper_at + p);
          if (second) mix(lower, lower_at + p);
        });
      }
  }

  void mix_given() {
    Step step{};
    step.outputs = filter.mix_outputs, step.pixels = columns;
    step.out_row = filter.out_channel, step.bias = filter.mix_bias, step.rectified = 1;
    step.count = 2;
    for (int64_t m = 0, frame = t; m < GIVEN && frame < filter.frames; m++, frame += Taps::APART)
      for (int64_t r = 0; r < rows; r++) {
        step.out = filter.out + frame * filter.out_frame + r * filter.out_row;
        const float* x = given + (m * outputs * HIGH + r) * GIVEN_PITCH;
        const float* y = filter.other.at + frame * filter.other.frame + filter.other.offset(r);
        step.factors[0] = factors(given_channels, filter.mix_weights, x);
        step.factors[1] = factors(other_channels, filter.other_weights, y);
        multiply(step, 0);
      }
  }
};

extern "C" const int64_t filter_high = HIGH, filter_width = WIDTH;

extern "C" void filter(const Filter* filter) {
  if (filter->apart == 1) Work<ThreeTaps>(*filter).run();
  else Work<Changes>(*filter).run();
}
