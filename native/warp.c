/* Moves pictures along a flow, and reduces them. */
#include "passes.h"

CLONES void places_row(int height, int width, const float *restrict flow, int cells_y, int cells_x,
                       int finer, int y, float *restrict scratch, int32_t *restrict from,
                       float *restrict wx, float *restrict wy) {
    float *restrict fx = scratch, *restrict fy = scratch + width, *restrict cells = scratch + 2 * width;
    enlarged_row(flow, cells_y, cells_x, finer, y, cells, fx);
    enlarged_row(flow + (size_t)cells_y * cells_x, cells_y, cells_x, finer, y, cells, fy);
    const float right = (float)(width - 1), bottom = (float)(height - 1);
    for (int x = 0; x < width; x++) {
        float px = x + fx[x] * finer, py = y + fy[x] * finer;
        /* In this order, what is not a number is looked up at 0. */
        px = px >= 0 ? px : 0;
        py = py >= 0 ? py : 0;
        px = px <= right ? px : right;
        py = py <= bottom ? py : bottom;
        /* The last pixel is reached from the one before it. */
        const int ix = least((int)px, width - 2), iy = least((int)py, height - 2);
        wx[x] = px - ix;
        wy[x] = py - iy;
        from[x] = iy * width + ix;
    }
}

/* Not cloned: with the widest vectors a compiler uses gathers, which take twice as long. */
static void look_up_row(const float *restrict plane, int width, const int32_t *restrict from,
                        const float *restrict wx, const float *restrict wy, float *restrict out) {
    for (int x = 0; x < width; x++) {
        const float *above = plane + from[x], *below = above + width;
        const float first = above[0] + (above[1] - above[0]) * wx[x];
        const float second = below[0] + (below[1] - below[0]) * wx[x];
        out[x] = first + (second - first) * wy[x];
    }
}

void warp_row(const float *planes, int channels, int height, int width, const float *flow, int cells_y,
              int cells_x, int finer, int y, float *scratch, float *out, size_t out_plane) {
    float *wx = scratch + 3 * width, *wy = scratch + 4 * width;
    int32_t *from = (int32_t *)(scratch + 5 * width);
    places_row(height, width, flow, cells_y, cells_x, finer, y, scratch, from, wx, wy);
    for (int channel = 0; channel < channels; channel++)
        look_up_row(planes + (size_t)channel * height * width, width, from, wx, wy,
                    out + channel * out_plane);
}

EXPORT int warp(const float *planes, int batch, int channels, int height, int width, const float *flow,
                int cells_y, int cells_x, int finer, float *out, int threads) {
    const size_t room = 6 * (size_t)width, plane = (size_t)height * width;
    float *const scratch = floats(room * threads);
    if (!scratch) return 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int row = 0; row < batch * height; row++) {
        const int one = row / height, y = row % height;
        const size_t picture = (size_t)one * channels * plane;
        warp_row(planes + picture, channels, height, width, flow + (size_t)one * 2 * cells_y * cells_x,
                  cells_y, cells_x, finer, y, own(scratch, room), out + picture + (size_t)y * width,
                  plane);
    }
    free(scratch);
    return 0;
}

CLONES void opening_row(const float *restrict picture, int channels, int height, int width, int y,
                        float *restrict scratch, float *restrict out) {
    const int half = width / 2;
    const float share = 0.25f / channels;
    float *grey = scratch + 1, *low = scratch + half + 3;
    for (int x = 0; x < half; x++) grey[x] = 0;
    for (int channel = 0; channel < channels; channel++) {
        const float *restrict first = picture + ((size_t)channel * height + 2 * y) * width;
        const float *restrict second = first + width;
        for (int x = 0; x < half; x++)
            grey[x] += first[2 * x] + first[2 * x + 1] + second[2 * x] + second[2 * x + 1];
    }
    grey[-1] = grey[0];
    grey[half] = grey[half - 1];
    for (int x = 0; x < half; x++) low[x] = lower(lower(grey[x - 1], grey[x + 1]), grey[x]) * share;
    low[-1] = low[0];
    low[half] = low[half - 1];
    for (int x = 0; x < half; x++) out[x] = upper(upper(low[x - 1], low[x + 1]), low[x]);
}

CLONES void halved_row(const float *restrict first, const float *restrict second, int width,
                       float *restrict out) {
    for (int x = 0; x < width; x++)
        out[x] = 0.25f * (first[2 * x] + first[2 * x + 1] + second[2 * x] + second[2 * x + 1]);
}

/* Reduces to a quarter of the size, without thin streaks. */
EXPORT int downsample_grey(const float *pictures, int batch, int channels, int height, int width,
                           float *out, int threads) {
    const int rows = height / 4, half = width / 2;
    const size_t room = 4 * (size_t)half + 4;
    float *const scratch = floats(room * threads);
    if (!scratch) return 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int row = 0; row < batch * rows; row++) {
        const int one = row / rows, y = row % rows;
        const float *picture = pictures + (size_t)one * channels * height * width;
        float *mine = own(scratch, room), *first = mine + 2 * half + 4, *second = first + half;
        opening_row(picture, channels, height, width, 2 * y, mine, first);
        opening_row(picture, channels, height, width, 2 * y + 1, mine, second);
        halved_row(first, second, width / 4, out + (size_t)row * (width / 4));
    }
    free(scratch);
    return 0;
}
