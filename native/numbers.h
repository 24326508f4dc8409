/* bfloat16, and vectorised versions of functions that the C library computes one value at a
 * time. */
#ifndef RAIN_REMOVAL_NUMBERS_H
#define RAIN_REMOVAL_NUMBERS_H

#include "passes.h"

INLINE uint16_t to_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    /* To the nearest, and to even where two are as near; what is not a number stays that. */
    const uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
    return (uint16_t)((value != value ? bits | 0x400000 : rounded) >> 16);
}

INLINE float from_bfloat16(uint16_t value) {
    const uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

/* exp(x), exact to the last bits of a float; Cody and Waite's reduction, Cephes' polynomial. */
INLINE float power_of_e(float x) {
    const float shifter = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    x = within(x, -87, 87);
    const float whole = x * 1.44269504f + shifter;
    int32_t exponent;
    memcpy(&exponent, &whole, sizeof exponent);
    const float turns = whole - shifter;
    const float rest = x - turns * 0.693359375f + turns * 2.12194440e-4f;
    float series = 1.9875691500e-4f;
    series = series * rest + 1.3981999507e-3f;
    series = series * rest + 8.3334519073e-3f;
    series = series * rest + 4.1665795894e-2f;
    series = series * rest + 1.6666665459e-1f;
    series = series * rest + 5.0000001201e-1f;
    const float value = series * rest * rest + rest + 1;
    const int32_t scale = (int32_t)((uint32_t)(exponent + 127) << 23);
    float factor;
    memcpy(&factor, &scale, sizeof factor);
    return x == x ? value * factor : x;
}

INLINE float sigmoid(float x) { return 1 / (1 + power_of_e(-x)); }

INLINE float hyperbolic_tangent(float x) { return 2 * sigmoid(2 * x) - 1; }

/* Row `y` of one folded plane of `planes`. */
INLINE void unfold(const void *restrict folded, int planes, int which, int width, int y, int bfloat16,
                   float *restrict out) {
    const size_t cell = (size_t)planes * FOLD * FOLD, cells = width / FOLD;
    const size_t first = (size_t)(y / FOLD) * cells * cell + which * FOLD * FOLD + y % FOLD * FOLD;
    if (bfloat16) {
        const uint16_t *restrict from = (const uint16_t *)folded + first;
        for (size_t x = 0; x < cells; x++)
            for (int k = 0; k < FOLD; k++) out[x * FOLD + k] = from_bfloat16(from[x * cell + k]);
    } else {
        const float *restrict from = (const float *)folded + first;
        for (size_t x = 0; x < cells; x++)
            for (int k = 0; k < FOLD; k++) out[x * FOLD + k] = from[x * cell + k];
    }
}

#endif
