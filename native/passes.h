/* What all passes share.
 *
 * A plane is H x W floats, row after row; pictures are planes one after another. Loops over x are
 * written so that a compiler vectorises them; loops over rows are shared by threads.
 */
#ifndef RAIN_REMOVAL_PASSES_H
#define RAIN_REMOVAL_PASSES_H

/* Increase this with every change to an exported function's arguments: `native.py` rejects
 * libraries of another revision, such as one that was built before the package was updated. */
#define REVISION 5

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#define THREAD omp_get_thread_num()
#else
#define THREAD 0
#endif

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

/* The processor's widest vectors, chosen when the library is loaded: a library built on one machine
 * runs on every other of its architecture. Functions with threads cannot be cloned, so the work on
 * rows is in functions of its own. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define CLONES
#endif

INLINE int least(int a, int b) { return a < b ? a : b; }
INLINE int most(int a, int b) { return a > b ? a : b; }
INLINE float lower(float a, float b) { return a < b ? a : b; }
INLINE float upper(float a, float b) { return a > b ? a : b; }
/* NaN stays NaN, so that the picture can be checked for it. */
INLINE float within(float value, float low, float high) {
    value = value < low ? low : value;
    return value > high ? high : value;
}

/* This thread's part of scratch memory with `size` floats per thread. */
INLINE float *own(float *scratch, size_t size) { return scratch + (size_t)THREAD * size; }

INLINE float *floats(size_t count) { return malloc(count * sizeof(float)); }

/* `row` of `width` columns enlarged `factor` times, bilinear between the centres of cells. */
INLINE void spread(const float *restrict row, int width, int factor, float *restrict out) {
    const int half = factor / 2;
    for (int k = 0; k < half; k++) {
        out[k] = row[0];
        out[width * factor - 1 - k] = row[width - 1];
    }
    for (int i = 0; i + 1 < width; i++)
        for (int k = 0; k < factor; k++)
            out[half + i * factor + k] = row[i] + (row[i + 1] - row[i]) * ((k + 0.5f) / factor);
}

/* Row `y` of a map of `height` x `width` cells enlarged `factor` times; `scratch` has room for a
 * row of the map. */
INLINE void enlarged_row(const float *restrict map, int height, int width, int factor, int y,
                         float *restrict scratch, float *restrict out) {
    if (factor == 1) {
        memcpy(out, map + (size_t)y * width, (size_t)width * sizeof(float));
        return;
    }
    const float from = upper((y + 0.5f) / factor - 0.5f, 0);
    const int above = least((int)from, height - 1), below = least(above + 1, height - 1);
    const float part = from - above;
    const float *first = map + (size_t)above * width, *second = map + (size_t)below * width;
    for (int x = 0; x < width; x++) scratch[x] = first[x] + (second[x] - first[x]) * part;
    /* Constants let the compiler unroll. */
    if (factor == 8) spread(scratch, width, 8, out);
    else if (factor == 4) spread(scratch, width, 4, out);
    else if (factor == 2) spread(scratch, width, 2, out);
    else spread(scratch, width, factor, out);
}

/* One row of `channels` planes, sampled along the flow; see warp.c. `scratch` has room for 6
 * rows. */
void warp_row(const float *planes, int channels, int height, int width, const float *flow, int cells_y,
              int cells_x, int finer, int y, float *scratch, float *out, size_t out_plane);

/* Row `y` of the mean of a picture's channels, at half the size, without bright parts narrower than
 * three pixels. `scratch` has room for two rows of half the width, and two values. */
void opening_row(const float *picture, int channels, int height, int width, int y, float *scratch,
                 float *out);

/* Two rows of a plane reduced to one; `width` is that of the result. */
void halved_row(const float *first, const float *second, int width, float *out);

/* Row `y` of the means over windows of 3 x 3 or 5 x 5 cells, of those inside. `scratch` has room
 * for a row. */
void window_mean_row(const float *plane, int height, int width, int side, int y, float *scratch,
                     float *out);

/* Side of a cell in pixels: of folded values, and of gains and offsets. */
enum { FOLD = 4, COARSE = 8 };

/* A frame and the network's outputs for it. */
typedef struct {
    const float *frame, *past, *maps, *known;
    const void *streaks;
    float *derained, *attention, *base;
    int height, width, bfloat16;
} Composition;

/* Row `y` of the candidate from the frame alone, into three rows `plane` apart, and of the
 * attention and the trust in the past if requested. `scratch` has room for four rows. */
void candidate_row(Composition a, int y, float *scratch, float *derained, size_t plane,
                   float *attention_out, float *trust);

/* Where row `y` is sampled: the pixel to the upper left, and the fractions beyond it. `scratch` has
 * room for three rows. */
void places_row(int height, int width, const float *flow, int cells_y, int cells_x, int finer, int y,
                float *scratch, int32_t *from, float *wx, float *wy);

#endif
