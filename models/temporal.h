// Convolutions along time by fewer products (Toom, Cook; see FewerProducts in
// models/prepared_convolutions.py): four frames are given out of six that are seen. Points are 1, -1, and
// POINT, -POINT, so that of a pair the even and the odd powers serve both, perhaps 0, and infinity. The
// frames of a group share their rounding, and NaN.

#pragma once

#include "products.h"

constexpr int64_t SEEN = 6, GIVEN = 4;
constexpr float POINT = 0.5f, SQUARE = POINT * POINT;

// Three taps: 6 products, not 12. The input transform makes images of the frames seen.
struct ThreeTaps {
  static constexpr int64_t APART = 1, IMAGES = 6;
  static void transform(const Vector* x, Vector* images) {
    const Vector one = x[4] - SQUARE * x[2], one_odd = x[3] - SQUARE * x[1];
    const Vector point = x[4] - x[2], point_odd = POINT * (x[3] - x[1]);
    images[0] = one + one_odd, images[1] = one - one_odd;
    images[2] = point + point_odd, images[3] = point - point_odd;
    images[4] = SQUARE * x[0] - (1 + SQUARE) * x[2] + x[4];
    images[5] = SQUARE * x[1] - (1 + SQUARE) * x[3] + x[5];
  }
  static Vector at_zero(const Vector* products) { return products[4]; }
};

// Two taps of the differences of frames two apart: 5 products, not 8.
struct Changes {
  static constexpr int64_t APART = 2, IMAGES = 5;
  static void transform(const Vector* x, Vector* images) {
    const Vector d0 = x[1] - x[0], d1 = x[2] - x[1], d2 = x[3] - x[2], d3 = x[4] - x[3];
    const Vector one = d3 - SQUARE * d1, one_odd = d2 - SQUARE * d0;
    const Vector point = d3 - d1, point_odd = POINT * (d2 - d0);
    images[0] = one + one_odd, images[1] = one - one_odd;
    images[2] = point + point_odd, images[3] = point - point_odd;
    images[4] = SQUARE * d0 - (1 + SQUARE) * d2 + (x[5] - x[4]);
  }
  static Vector at_zero(const Vector*) { return Vector{}; }
};

// The output transform: the frames that the products with all images come to.
template <typename Taps>
static inline void output_transform(const Vector* products, Vector* given) {
  const Vector one = products[0] + products[1], one_odd = products[0] - products[1];
  const Vector point = products[2] + products[3], point_odd = products[2] - products[3];
  given[0] = Taps::at_zero(products) + one + point;
  given[1] = one_odd + POINT * point_odd;
  given[2] = one + SQUARE * point;
  given[3] = one_odd + POINT * SQUARE * point_odd + products[Taps::IMAGES - 1];
}

// Calls at(t) for the first frame of every group: frames t, t + APART, ... are given.
template <typename Taps, typename At>
static inline void for_groups(int64_t frames, At at) {
  for (int64_t from = 0; from < frames; from += GIVEN * Taps::APART)
    for (int64_t t = from; t < std::min(from + Taps::APART, frames); t++) at(t);
}

// Where the frames lie that a group sees, APART before the first that is given or, beyond the end, the
// last: of an array that begins and ends with APART frames more than are given.
template <typename Taps>
static inline void see(const float* x, int64_t step, int64_t t, int64_t frames, const float** seen) {
  for (int64_t f = 0; f < SEEN; f++)
    seen[f] = x + std::min(t + f * Taps::APART, frames + 2 * Taps::APART - 1) * step;
}
