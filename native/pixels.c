/* Converts between pictures (bytes, red, green and blue interleaved) and planes of floats. */
#include "passes.h"

CLONES static void read_row(const uint8_t *restrict row, int width, float *restrict red,
                            float *restrict green, float *restrict blue) {
    const float step = 1 / 255.0f;
    for (int x = 0; x < width; x++) {
        red[x] = row[3 * x] * step;
        green[x] = row[3 * x + 1] * step;
        blue[x] = row[3 * x + 2] * step;
    }
}

/* Rounds to one of 256 steps, halves to even. */
INLINE uint8_t as_byte(float value) {
    const float shifted = within(value, 0, 1) * 255 + 8388608.0f; /* 2^23: whole numbers from here on */
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return (uint8_t)bits;
}

CLONES static void write_row(const float *restrict red, const float *restrict green,
                             const float *restrict blue, int width, uint8_t *restrict row) {
    for (int x = 0; x < width; x++) {
        row[3 * x] = as_byte(red[x]);
        row[3 * x + 1] = as_byte(green[x]);
        row[3 * x + 2] = as_byte(blue[x]);
    }
}

/* Converts a picture of `height` x `width` pixels to three planes of `rows` x `columns`; its last
 * row and column are repeated. A row of the picture takes `stride` bytes. */
EXPORT int unpack_rgb(const uint8_t *picture, size_t stride, int height, int width, float *planes,
                      int rows, int columns, int threads) {
    const size_t plane = (size_t)rows * columns;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int y = 0; y < rows; y++) {
        float *row = planes + (size_t)y * columns;
        read_row(picture + least(y, height - 1) * stride, width, row, row + plane, row + 2 * plane);
        for (int c = 0; c < 3; c++, row += plane)
            for (int x = width; x < columns; x++) row[x] = row[width - 1];
    }
    return 0;
}

/* Converts planes (`plane` floats apart, rows `line` floats apart) to a picture whose rows take
 * `stride` bytes. */
EXPORT int pack_rgb(const float *planes, size_t plane, size_t line, int height, int width,
                    uint8_t *picture, size_t stride, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int y = 0; y < height; y++) {
        const float *row = planes + y * line;
        write_row(row, row + plane, row + 2 * plane, width, picture + y * stride);
    }
    return 0;
}
