/* Structural similarity (Wang et al. 2004) of planes and its gradient, in one pass, for
 * training. */
#include "passes.h"

enum { WINDOW = 11, MOMENTS = 5, SLOPES = 3 };

/* The weighted sum of WINDOW floats from `from` on, `stride` apart. The window is the same from
 * either side. Written out, because the compiler makes gathers of a loop over the window. */
INLINE float windowed(const float *restrict from, size_t stride, const float *restrict half) {
    return half[0] * (from[0] + from[10 * stride]) + half[1] * (from[stride] + from[9 * stride]) +
           half[2] * (from[2 * stride] + from[8 * stride]) +
           half[3] * (from[3 * stride] + from[7 * stride]) +
           half[4] * (from[4 * stride] + from[6 * stride]) + half[5] * from[5 * stride];
}

/* The windowed sums of a row, where the window fits completely. */
INLINE void blur_row(const float *restrict row, const float *restrict kernel, int count,
                     float *restrict out) {
    for (int x = 0; x < count; x++) out[x] = windowed(row + x, 1, kernel);
}

/* The windowed sums across rows, `stride` apart. */
INLINE void blur_rows(const float *restrict rows, size_t stride, const float *restrict kernel,
                      int count, float *restrict out) {
    for (int x = 0; x < count; x++) out[x] = windowed(rows + x, stride, kernel);
}

/* The moments of row `y`, blurred along it; `scratch` has room for a row. */
CLONES static void moments_row(const float *restrict first, const float *restrict second, int width,
                               const float *kernel, float *restrict scratch, float *restrict out,
                               size_t moment) {
    const int count = width - WINDOW + 1;
    blur_row(first, kernel, count, out);
    blur_row(second, kernel, count, out + moment);
    for (int x = 0; x < width; x++) scratch[x] = first[x] * first[x];
    blur_row(scratch, kernel, count, out + 2 * moment);
    for (int x = 0; x < width; x++) scratch[x] = second[x] * second[x];
    blur_row(scratch, kernel, count, out + 3 * moment);
    for (int x = 0; x < width; x++) scratch[x] = first[x] * second[x];
    blur_row(scratch, kernel, count, out + 4 * moment);
}

/* The summed similarity of one row of windows, and its slopes by the first picture's mean, mean
 * square and mean product. `scratch` has room for MOMENTS rows. */
CLONES static float similarity_row(const float *restrict moments, size_t moment, int count,
                                   const float *kernel, float c1, float c2, float *restrict scratch,
                                   float *restrict slopes, size_t slope) {
    for (int m = 0; m < MOMENTS; m++)
        blur_rows(moments + m * moment, count, kernel, count, scratch + m * count);
    const float *restrict mean1 = scratch, *restrict mean2 = scratch + count;
    const float *restrict square1 = scratch + 2 * count, *restrict square2 = scratch + 3 * count;
    const float *restrict product = scratch + 4 * count;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int x = 0; x < count; x++) {
        const float a = mean1[x], b = mean2[x];
        const float covariance = product[x] - a * b;
        const float spread_of = square1[x] - a * a + square2[x] - b * b + c2;
        const float size = a * a + b * b + c1;
        const float brightness = (2 * a * b + c1) / size, structure = (2 * covariance + c2) / spread_of;
        const float by_square = -brightness * structure / spread_of,
        by_product = 2 * brightness / spread_of;
        sum += brightness * structure;
        slopes[x] = 2 * (b - a * brightness) / size * structure - 2 * a * by_square - b * by_product;
        slopes[slope + x] = by_square;
        slopes[2 * slope + x] = by_product;
    }
    return sum;
}

/* Row `y` of the gradient: the slopes of all windows that contain it. `scratch` has room for two
 * rows with a window more at their ends. */
CLONES static void gradient_row(const float *restrict slopes, size_t slope, int rows, int count, int y,
                                const float *restrict kernel, const float *restrict first,
                                const float *restrict second, float scale, float *restrict scratch,
                                float *restrict out) {
    const int width = count + WINDOW - 1, from = most(y - WINDOW + 1, 0), to = least(y + 1, rows);
    float *restrict padded = scratch, *restrict spread_out = scratch + width + WINDOW;
    for (int s = 0; s < SLOPES; s++) {
        memset(padded, 0, (size_t)(width + WINDOW) * sizeof(float));
        float *restrict sums = padded + WINDOW - 1;
        for (int row = from; row < to; row++) {
            const float weight = kernel[y - row];
            const float *restrict line = slopes + s * slope + (size_t)row * count;
            for (int x = 0; x < count; x++) sums[x] += weight * line[x];
        }
        /* The window is the same from either side, so its transpose is itself. */
        blur_row(padded, kernel, width, spread_out);
        if (s == 0)
            for (int x = 0; x < width; x++) out[x] = scale * spread_out[x];
        else if (s == 1)
            for (int x = 0; x < width; x++) out[x] += scale * 2 * first[x] * spread_out[x];
        else
            for (int x = 0; x < width; x++) out[x] += scale * second[x] * spread_out[x];
    }
}

/* The mean similarity of each of `planes` pairs of planes, and the gradient of their common mean in the
 * first of each pair. `kernel` has WINDOW weights; no side is shorter than it. */
EXPORT int similarity(const float *firsts, const float *seconds, int planes, int height, int width,
                      const float *kernel, float c1, float c2, float *means, float *gradient,
                      int threads) {
    const int rows = height - WINDOW + 1, count = width - WINDOW + 1;
    const size_t area = (size_t)height * width, moment = (size_t)height * count;
    const size_t slope = (size_t)rows * count;
    const size_t scratch_size = (MOMENTS * (size_t)width) + 2 * WINDOW;
    const size_t room = MOMENTS * moment + SLOPES * slope + scratch_size;
    float *const memory = floats(room * threads);
    if (!memory) return 1;
    const float scale = 1 / ((float)planes * rows * count);
    /* A plane and all that is made of it stay in a core's cache. */
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int plane = 0; plane < planes; plane++) {
        float *moments = own(memory, room), *slopes = moments + MOMENTS * moment;
        float *scratch = slopes + SLOPES * slope;
        const float *first = firsts + plane * area, *second = seconds + plane * area;
        double sum = 0;
        for (int y = 0; y < height; y++)
            moments_row(first + (size_t)y * width, second + (size_t)y * width, width, kernel, scratch,
                        moments + (size_t)y * count, moment);
        for (int y = 0; y < rows; y++)
            sum += similarity_row(moments + (size_t)y * count, moment, count, kernel, c1, c2, scratch,
                                  slopes + (size_t)y * count, slope);
        for (int y = 0; y < height; y++)
            gradient_row(slopes, slope, rows, count, y, kernel, first + (size_t)y * width,
                         second + (size_t)y * width, scale, scratch,
                         gradient + plane * area + (size_t)y * width);
        means[plane] = (float)(sum / ((double)rows * count));
    }
    free(memory);
    return 0;
}
