/* Passes over feature maps between rainstream's convolutions.
 *
 * Channels come last. Values are floats, or bfloat16. Intermediate values are packed into rows of
 * their own, because vectors are longer than a pixel has channels.
 */
#include "numbers.h"
#include "passes.h"

INLINE float get(const void *values, size_t at, int bfloat16) {
    return bfloat16 ? from_bfloat16(((const uint16_t *)values)[at]) : ((const float *)values)[at];
}

INLINE void put(void *values, size_t at, float value, int bfloat16) {
    if (bfloat16) ((uint16_t *)values)[at] = to_bfloat16(value);
    else ((float *)values)[at] = value;
}

/* Copies `size` bytes of each of `width` pixels; the pixels of `from` and `to` have strides of
 * their own. */
INLINE void copy_parts(const char *restrict from, size_t from_pixel, char *restrict to, size_t to_pixel,
                       int width, size_t size) {
    for (int x = 0; x < width; x++) memcpy(to + x * to_pixel, from + x * from_pixel, size);
}

INLINE void add(void *restrict values, const void *restrict others, size_t count, int bfloat16) {
    for (size_t i = 0; i < count; i++)
        put(values, i, get(values, i, bfloat16) + get(others, i, bfloat16), bfloat16);
}

INLINE void close_gate(void *restrict values, const void *restrict gate, size_t count, int bfloat16) {
    for (size_t i = 0; i < count; i++)
        put(values, i, get(values, i, bfloat16) * sigmoid(get(gate, i, bfloat16)), bfloat16);
}

INLINE void renew(const void *restrict before, const void *restrict gate,
                  const void *restrict candidate, void *restrict out, size_t count, int bfloat16) {
    for (size_t i = 0; i < count; i++) {
        const float old = get(before, i, bfloat16);
        const float new = hyperbolic_tangent(get(candidate, i, bfloat16));
        put(out, i, old + (new - old) * sigmoid(get(gate, i, bfloat16)), bfloat16);
    }
}

/* With constants, the compiler makes a loop for each kind of number. */
CLONES static void add_row(void *values, const void *others, size_t count, int bfloat16) {
    if (bfloat16) add(values, others, count, 1);
    else add(values, others, count, 0);
}

CLONES static void close_gate_row(void *values, const void *gate, size_t count, int bfloat16) {
    if (bfloat16) close_gate(values, gate, count, 1);
    else close_gate(values, gate, count, 0);
}

CLONES static void renew_row(const void *before, const void *gate, const void *candidate, void *out,
                             size_t count, int bfloat16) {
    if (bfloat16) renew(before, gate, candidate, out, count, 1);
    else renew(before, gate, candidate, out, count, 0);
}

/* Adds `coarse`, enlarged twice, to `fine`. Rows are those of the whole batch. */
EXPORT int upsample_add(void *fine, const void *coarse, int rows, int width, int channels, int bfloat16,
                        int threads) {
    const size_t pixel = channels * (bfloat16 ? sizeof(uint16_t) : sizeof(float)), row = width * pixel;
    float *const scratch = floats((size_t)width * channels * threads);
    if (!scratch) return 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int y = 0; y < rows; y++) {
        char *wide = (char *)own(scratch, (size_t)width * channels);
        const char *below = (const char *)coarse + y / 2 * (row / 2);
        copy_parts(below, pixel, wide, 2 * pixel, width / 2, pixel);
        copy_parts(below, pixel, wide + pixel, 2 * pixel, width / 2, pixel);
        add_row((char *)fine + y * row, wide, (size_t)width * channels, bfloat16);
    }
    free(scratch);
    return 0;
}

/* Multiplies the hidden state in `joined` (inputs and hidden state) by the reset gate, which is the
 * second half of `gates`. */
EXPORT int apply_reset_gate(void *joined, const void *gates, int rows, int width, int inputs,
                            int hidden, int bfloat16, int threads) {
    const size_t size = bfloat16 ? sizeof(uint16_t) : sizeof(float), part = hidden * size;
    const size_t whole = (inputs + hidden) * size, count = (size_t)width * hidden;
    float *const scratch = floats(2 * count * threads);
    if (!scratch) return 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int y = 0; y < rows; y++) {
        char *known = (char *)joined + y * width * whole + inputs * size;
        char *values = (char *)own(scratch, 2 * count), *gate = values + count * size;
        copy_parts(known, whole, values, part, width, part);
        copy_parts((const char *)gates + y * width * 2 * part + part, 2 * part, gate, part, width,
                   part);
        close_gate_row(values, gate, count, bfloat16);
        copy_parts(values, part, known, whole, width, part);
    }
    free(scratch);
    return 0;
}

/* Moves the hidden state towards the candidate by the update gate, which is the first half of
 * `gates`. */
EXPORT int gru_update(const void *before, const void *gates, const void *candidate, int rows, int width,
                      int hidden, int bfloat16, void *out, int threads) {
    const size_t part = hidden * (bfloat16 ? sizeof(uint16_t) : sizeof(float)), row = width * part;
    const size_t count = (size_t)width * hidden;
    float *const scratch = floats(count * threads);
    if (!scratch) return 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int y = 0; y < rows; y++) {
        char *gate = (char *)own(scratch, count);
        copy_parts((const char *)gates + y * 2 * row, 2 * part, gate, part, width, part);
        renew_row((const char *)before + y * row, gate, (const char *)candidate + y * row,
                  (char *)out + y * row, count, bfloat16);
    }
    free(scratch);
    return 0;
}
