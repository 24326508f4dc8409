/* Samples for a deformable convolution, as columns for a matrix product, and their gradient.
 *
 * Images have their channels last; offsets and modulation are planes. A column has all channels of
 * a place for each tap of a 3 x 3 kernel: with hundreds of channels, a sample is four long runs of
 * memory.
 */
#include "numbers.h"
#include "passes.h"

enum { SIDE = 3, TAPS = SIDE * SIDE };

/* A feature map and where it is sampled: for each tap, planes of `rows` x `columns` with offsets
 * down and right, and with factors if there is a modulation. The first of these rows is row `first`
 * of the map. */
typedef struct {
    const float *image, *offsets, *modulation;
    int height, width, channels, rows, columns, first;
} Sampling;

/* The four pixels around a place, NULL beyond the image, and their weights. */
typedef struct {
    const float *pixel[4];
    float share[4], down, right, factor;
} Sample;

INLINE Sample sample_at(const Sampling *a, int one, int y, int x, int tap) {
    const size_t plane = (size_t)a->rows * a->columns, at = (size_t)y * a->columns + x;
    const float *offsets = a->offsets + ((size_t)one * TAPS + tap) * 2 * plane + at;
    const float *image = a->image + (size_t)one * a->height * a->width * a->channels;
    Sample found;
    /* Within reach of the image, so that no number is too large for an int; in this order, what is not a
     * number is taken for 0. */
    float py = offsets[0] + (a->first + y + tap / SIDE), px = offsets[plane] + (x + tap % SIDE);
    py = py > -2 ? lower(py, (float)a->height + 1) : -2;
    px = px > -2 ? lower(px, (float)a->width + 1) : -2;
    const int top = (int)(py + 2) - 2, left = (int)(px + 2) - 2;
    found.down = py - top;
    found.right = px - left;
    found.factor = a->modulation ? a->modulation[((size_t)one * TAPS + tap) * plane + at] : 1;
    for (int k = 0; k < 4; k++) {
        const int row = top + k / 2, column = left + k % 2;
        const int inside = row >= 0 && row < a->height && column >= 0 && column < a->width;
        found.pixel[k] = inside ? image + ((size_t)row * a->width + column) * a->channels : NULL;
        found.share[k] = (k / 2 ? found.down : 1 - found.down) * (k % 2 ? found.right : 1 - found.right);
    }
    return found;
}

CLONES static void columns_row(const Sampling *a, int one, int y, float *restrict value, void *columns,
                               int bfloat16) {
    const int channels = a->channels;
    for (int x = 0; x < a->columns; x++) {
        for (int tap = 0; tap < TAPS; tap++) {
            const Sample s = sample_at(a, one, y, x, tap);
            for (int c = 0; c < channels; c++) value[c] = 0;
            for (int k = 0; k < 4; k++) {
                const float *restrict pixel = s.pixel[k];
                const float share = s.share[k] * s.factor;
                if (pixel)
                    for (int c = 0; c < channels; c++) value[c] += share * pixel[c];
            }
            const size_t at = ((size_t)x * TAPS + tap) * channels;
            if (bfloat16) {
                uint16_t *restrict out = (uint16_t *)columns + at;
                for (int c = 0; c < channels; c++) out[c] = to_bfloat16(value[c]);
            } else {
                memcpy((float *)columns + at, value, channels * sizeof(float));
            }
        }
    }
}

EXPORT int deform_columns(const float *image, const float *offsets, const float *modulation, int batch,
                          int height, int width, int channels, int rows, int columns, int first,
                          void *out, int bfloat16, int threads) {
    const Sampling a = {image, offsets, modulation, height, width, channels, rows, columns, first};
    const size_t row = (size_t)columns * TAPS * channels * (bfloat16 ? sizeof(uint16_t) : sizeof(float));
    float *const scratch = floats((size_t)channels * threads);
    if (!scratch) return 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int i = 0; i < batch * rows; i++)
        columns_row(&a, i / rows, i % rows, own(scratch, channels), (char *)out + i * row, bfloat16);
    free(scratch);
    return 0;
}

CLONES static float product(const float *restrict first, const float *restrict second, int count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int c = 0; c < count; c++) sum += first[c] * second[c];
    return sum;
}

CLONES static void add_scaled(float *restrict sum, const float *restrict values, float factor, int count) {
    for (int c = 0; c < count; c++) sum[c] += factor * values[c];
}

static void gradient_at(const Sampling *a, int one, int y, int x, int tap, const float *of_column,
                        float *of_image, float *of_offsets, float *of_modulation) {
    const size_t plane = (size_t)a->rows * a->columns, at = (size_t)y * a->columns + x;
    const size_t field = ((size_t)one * TAPS + tap) * plane + at;
    const Sample s = sample_at(a, one, y, x, tap);
    float likeness[4] = {0, 0, 0, 0}, of_factor = 0;
    for (int k = 0; k < 4; k++) {
        if (!s.pixel[k]) continue;
        likeness[k] = product(of_column, s.pixel[k], a->channels);
        of_factor += s.share[k] * likeness[k];
        add_scaled(of_image + (s.pixel[k] - a->image), of_column, s.share[k] * s.factor, a->channels);
    }
    float *offset = of_offsets + ((size_t)one * TAPS + tap) * 2 * plane + at;
    offset[0] = s.factor * ((1 - s.right) * (likeness[2] - likeness[0]) +
                            s.right * (likeness[3] - likeness[1]));
    offset[plane] = s.factor * ((1 - s.down) * (likeness[1] - likeness[0]) +
                                s.down * (likeness[3] - likeness[2]));
    if (of_modulation) of_modulation[field] = of_factor;
}

/* `of_image` must be zero at first. Threads share pictures, because samples of any row may fall on
 * any pixel. */
EXPORT int deform_gradient(const float *image, const float *offsets, const float *modulation, int batch,
                           int height, int width, int channels, int rows, int columns, int first,
                           const void *of_columns, int bfloat16, float *of_image, float *of_offsets,
                           float *of_modulation, int threads) {
    const Sampling a = {image, offsets, modulation, height, width, channels, rows, columns, first};
    float *const scratch = floats((size_t)channels * threads);
    if (!scratch) return 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int one = 0; one < batch; one++) {
        float *wide = own(scratch, channels);
        for (int i = 0; i < rows * columns * TAPS; i++) {
            const size_t at = ((size_t)one * rows * columns * TAPS + i) * channels;
            const float *given = (const float *)of_columns + at;
            if (bfloat16) {
                const uint16_t *narrow = (const uint16_t *)of_columns + at;
                for (int c = 0; c < channels; c++) wide[c] = from_bfloat16(narrow[c]);
                given = wide;
            }
            const int place = i / TAPS;
            gradient_at(&a, one, place / columns, place % columns, i % TAPS, given, of_image, of_offsets,
                        of_modulation);
        }
    }
    free(scratch);
    return 0;
}
