// Convolutions along time by fewer products (Toom, Cook; see FewerProducts in
// models/prepared_convolutions.py): GIVEN frames out of SEEN. Points are 1, -1, 2, -2, perhaps 0, and
// infinity: of a pair of them the even and the odd powers serve both.

#pragma once

#include "products.h"

constexpr int64_t SEEN = 6, GIVEN = 4;

// Three taps: 6 products, not 12.
struct ThreeTaps {
  static constexpr int64_t APART = 1, IMAGES = 6;
  static void look(const Vector* x, Vector* images) {
    const Vector one = x[4] - 4 * x[2], one_odd = x[3] - 4 * x[1];
    const Vector two = x[4] - x[2], two_odd = 2 * (x[3] - x[1]);
    images[0] = one + one_odd, images[1] = one - one_odd;
    images[2] = two + two_odd, images[3] = two - two_odd;
    images[4] = 4 * x[0] - 5 * x[2] + x[4];
    images[5] = 4 * x[1] - 5 * x[3] + x[5];
  }
  static Vector zero(const Vector* products) { return products[4]; }
};

// Two taps of the differences of frames two apart: 5 products, not 8.
struct Changes {
  static constexpr int64_t APART = 2, IMAGES = 5;
  static void look(const Vector* x, Vector* images) {
    const Vector d0 = x[1] - x[0], d1 = x[2] - x[1], d2 = x[3] - x[2], d3 = x[4] - x[3];
    const Vector one = d3 - 4 * d1, one_odd = d2 - 4 * d0;
    const Vector two = d3 - d1, two_odd = 2 * (d2 - d0);
    images[0] = one + one_odd, images[1] = one - one_odd;
    images[2] = two + two_odd, images[3] = two - two_odd;
    images[4] = 4 * d0 - 5 * d2 + (x[5] - x[4]);
  }
  static Vector zero(const Vector*) { return Vector{}; }
};

// The frames that the products with all images come to.
template <typename Form>
static inline void give(const Vector* products, Vector* given) {
  const Vector one = products[0] + products[1], one_odd = products[0] - products[1];
  const Vector two = products[2] + products[3], two_odd = products[2] - products[3];
  given[0] = Form::zero(products) + one + two;
  given[1] = one_odd + 2 * two_odd;
  given[2] = one + 4 * two;
  given[3] = one_odd + 8 * two_odd + products[Form::IMAGES - 1];
}
