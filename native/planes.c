/* The passes over whole planes before and after rainstream's convolutions.
 *
 * Between them, planes are folded: a cell of FOLD x FOLD pixels is a pixel with FOLD * FOLD
 * channels for each plane, and channels come last. Folded values are floats, or bfloat16: their
 * upper halves.
 */
#include "numbers.h"
#include "passes.h"

enum { AREA = FOLD * FOLD, STRIP = 16 };

EXPORT int revision(void) { return REVISION; }

/* Mean and mean square of grey over FOLD x FOLD pixels, for one row of cells. */
CLONES static void block_row(const float *restrict frame, size_t plane, int width, int row,
                             float *restrict scratch, float *restrict mean, float *restrict square) {
    float *restrict sums = scratch, *restrict squares = scratch + width;
    memset(scratch, 0, 2 * (size_t)width * sizeof(float));
    for (int y = row * FOLD; y < (row + 1) * FOLD; y++) {
        const float *restrict red = frame + (size_t)y * width;
        const float *restrict green = red + plane, *restrict blue = green + plane;
        for (int x = 0; x < width; x++) {
            const float grey = (red[x] + green[x] + blue[x]) * (1 / 3.0f);
            sums[x] += grey;
            squares[x] += grey * grey;
        }
    }
    for (int x = 0; x < width / FOLD; x++) {
        float sum = 0, of_squares = 0;
        for (int k = 0; k < FOLD; k++) {
            sum += sums[x * FOLD + k];
            of_squares += squares[x * FOLD + k];
        }
        mean[x] = sum / AREA;
        square[x] = of_squares / AREA;
    }
}

/* The factor and the offset that rectify the local contrast of grey. */
CLONES static void contrast_row(const float *restrict means, const float *restrict squares, int height,
                                int width, int row, float epsilon, float *restrict scratch,
                                float *restrict scale, float *restrict shift) {
    float *restrict mean = scratch, *restrict square = scratch + width;
    window_mean_row(means, height, width, 5, row, scratch + 2 * width, mean);
    window_mean_row(squares, height, width, 5, row, scratch + 2 * width, square);
    for (int x = 0; x < width; x++) {
        const float deviation = __builtin_sqrtf(upper(square[x] - mean[x] * mean[x], 0));
        scale[x] = 0.25f / (deviation + epsilon);
        shift[x] = -mean[x] * scale[x];
    }
}

/* One row of cells of all planes; `rows` has room for planes * FOLD rows of pixels, for as many of
 * half the width, and for three more. */
CLONES static void enter_row(const float *restrict frame, const float *past, const float *extras,
                             int extra, size_t plane, int width, const float *scale, const float *shift,
                             int height, int row, float *restrict rows, void *restrict out,
                             int bfloat16) {
    const int cells = width / FOLD, guided = scale != NULL;
    const int planes = 3 + guided + (past ? 3 : 0) + extra;
    float *const multiply = rows + (size_t)planes * FOLD * width, *const add = multiply + width;
    float *const scratch = add + width;
    for (int fy = 0; fy < FOLD; fy++) {
        const int y = row * FOLD + fy;
        const float *restrict red = frame + (size_t)y * width;
        const float *restrict green = red + plane, *restrict blue = green + plane;
        for (int c = 0; c < 3; c++)
            memcpy(rows + ((size_t)c * FOLD + fy) * width, red + c * plane, width * sizeof(float));
        if (guided) {
            float *restrict guide = rows + (3 * FOLD + (size_t)fy) * width;
            enlarged_row(scale, height, cells, FOLD, y, scratch, multiply);
            enlarged_row(shift, height, cells, FOLD, y, scratch, add);
            for (int x = 0; x < width; x++) {
                const float grey = (red[x] + green[x] + blue[x]) * (1 / 3.0f);
                guide[x] = within(grey * multiply[x] + add[x], 0, 1);
            }
        }
        for (int c = 0; past && c < 3; c++) {
            const float *restrict before = past + c * plane + (size_t)y * width;
            const float *restrict now = red + c * plane;
            float *restrict change = rows + ((size_t)(3 + guided + c) * FOLD + fy) * width;
            for (int x = 0; x < width; x++) change[x] = before[x] - now[x];
        }
        for (int c = 0; c < extra; c++)
            memcpy(rows + ((size_t)(planes - extra + c) * FOLD + fy) * width,
                   extras + c * plane + (size_t)y * width, width * sizeof(float));
    }
    const size_t lines = (size_t)planes * FOLD, first = (size_t)row * cells * lines * FOLD;
    if (bfloat16) {
        uint16_t *restrict target = (uint16_t *)out + first;
        uint16_t *restrict narrow = (uint16_t *)(scratch + width);
        for (size_t i = 0; i < lines * width; i++) narrow[i] = to_bfloat16(rows[i]);
        for (int x = 0; x < cells; x++)
            for (size_t line = 0; line < lines; line++)
                memcpy(target + (x * lines + line) * FOLD, narrow + line * width + x * FOLD,
                       FOLD * sizeof(uint16_t));
    } else {
        float *restrict target = (float *)out + first;
        for (int x = 0; x < cells; x++)
            for (size_t line = 0; line < lines; line++)
                memcpy(target + (x * lines + line) * FOLD, rows + line * width + x * FOLD,
                       FOLD * sizeof(float));
    }
}

/* Folds frames, their local contrast, their difference to the past and `extra` more planes.
 * `guided` is 0 without a guide; `pasts` is NULL without a past. */
EXPORT int fold_inputs(const float *frames, const float *pasts, const float *extras, int extra,
                       int batch, int height, int width, int guided, float epsilon, void *out,
                       int bfloat16, int threads) {
    const int rows = height / FOLD, cells = width / FOLD;
    const int planes = 3 + (guided ? 1 : 0) + (pasts ? 3 : 0) + extra;
    const size_t plane = (size_t)height * width, blocks = (size_t)rows * cells;
    float *const maps = floats(4 * blocks);
    if (!maps) return 1;
    float *const means = maps, *const squares = maps + blocks;
    float *const scale = maps + 2 * blocks, *const shift = maps + 3 * blocks;
    const size_t room = ((size_t)planes * FOLD * 3 / 2 + 3) * width;
    float *const scratch = floats(room * threads);
    if (!scratch) {
        free(maps);
        return 1;
    }
    for (int one = 0; one < batch; one++) {
        const float *frame = frames + one * 3 * plane;
        const float *past = pasts ? pasts + one * 3 * plane : NULL;
        const float *more = extra ? extras + (size_t)one * extra * plane : NULL;
        char *target = (char *)out + one * planes * plane * (bfloat16 ? 2 : 4);
#pragma omp parallel num_threads(threads)
        {
            if (guided) {
#pragma omp for schedule(static)
                for (int row = 0; row < rows; row++)
                    block_row(frame, plane, width, row, own(scratch, room), means + (size_t)row * cells,
                              squares + (size_t)row * cells);
#pragma omp for schedule(static)
                for (int row = 0; row < rows; row++)
                    contrast_row(means, squares, rows, cells, row, epsilon, own(scratch, room),
                                 scale + (size_t)row * cells, shift + (size_t)row * cells);
            }
#pragma omp for schedule(static)
            for (int row = 0; row < rows; row++)
                enter_row(frame, past, more, extra, plane, width, guided ? scale : NULL, shift, rows,
                          row, own(scratch, room), target, bfloat16);
        }
    }
    free(maps);
    free(scratch);
    return 0;
}

CLONES void candidate_row(Composition a, int y, float *restrict scratch, float *restrict derained,
                          size_t plane, float *restrict attention_out, float *restrict trust) {
    const int width = a.width, height = a.height, planes = a.past ? 5 : 4;
    const size_t area = (size_t)height * width, coarse = area / (COARSE * COARSE);
    float *restrict attention = scratch, *restrict row = scratch + width;
    float *restrict offset = scratch + 2 * width, *restrict small = scratch + 3 * width;
    unfold(a.streaks, planes, 3, width, y, a.bfloat16, attention);
    for (int x = 0; x < width; x++) attention[x] = sigmoid(attention[x]);
    if (attention_out) memcpy(attention_out, attention, width * sizeof(float));
    for (int c = 0; c < 3; c++) {
        const float *restrict frame = a.frame + c * area + (size_t)y * width;
        float *restrict target = derained + c * plane;
        unfold(a.streaks, planes, c, width, y, a.bfloat16, row);
        for (int x = 0; x < width; x++) target[x] = frame[x] - attention[x] * row[x];
        if (!a.maps) continue;
        enlarged_row(a.maps + c * coarse, height / COARSE, width / COARSE, COARSE, y, small, row);
        enlarged_row(a.maps + (3 + c) * coarse, height / COARSE, width / COARSE, COARSE, y, small,
                     offset);
        for (int x = 0; x < width; x++) target[x] = target[x] * row[x] + offset[x];
    }
    if (!trust) return;
    const float *restrict known = a.known + (size_t)(y / COARSE) * (width / COARSE);
    unfold(a.streaks, planes, 4, width, y, a.bfloat16, trust);
    for (int x = 0; x < width; x++) trust[x] = sigmoid(trust[x]);
    for (int x = 0; x < width / COARSE; x++)
        for (int k = 0; k < COARSE; k++) trust[x * COARSE + k] *= known[x];
}

/* Blends in the past, clamped to the range of the neighbourhood, weighted by the trust in it. Rows
 * are of the candidate from the frame alone; `lows` and `highs` have room for a row and one pixel
 * at either side. */
CLONES static void blend_row(const float *restrict above, const float *restrict here,
                             const float *restrict below, const float *restrict past,
                             const float *restrict trust, int width, float *restrict lows,
                             float *restrict highs, float *restrict out) {
    float *low = lows + 1, *high = highs + 1;
    for (int x = 0; x < width; x++) {
        low[x] = lower(lower(above[x], below[x]), here[x]);
        high[x] = upper(upper(above[x], below[x]), here[x]);
    }
    low[-1] = low[0], low[width] = low[width - 1];
    high[-1] = high[0], high[width] = high[width - 1];
    for (int x = 0; x < width; x++) {
        const float least_of = lower(lower(low[x - 1], low[x + 1]), low[x]);
        const float most_of = upper(upper(high[x - 1], high[x + 1]), high[x]);
        const float kept = within(past[x], least_of, most_of);
        out[x] = within(here[x] + (kept - here[x]) * trust[x], 0, 1);
    }
}

/* The derained picture from the carried one: gain and offset of one colour. `scratch` has room for
 * three rows. */
CLONES static void lift_row(const float *restrict base, const float *gains, const float *offsets,
                            int height, int width, int y, float *restrict scratch,
                            float *restrict out) {
    float *restrict gain = scratch, *restrict offset = scratch + width;
    float *restrict small = scratch + 2 * width;
    enlarged_row(gains, height / COARSE, width / COARSE, COARSE, y, small, gain);
    enlarged_row(offsets, height / COARSE, width / COARSE, COARSE, y, small, offset);
    for (int x = 0; x < width; x++) out[x] = within(base[x] * gain[x] + offset[x], 0, 1);
}

CLONES static void clip_row(const float *restrict row, int width, float *restrict out) {
    for (int x = 0; x < width; x++) out[x] = within(row[x], 0, 1);
}

/* STRIP rows of the derained picture, from `top` on; `scratch` has room for 4 * STRIP + 10 rows. */
static void compose_strip(Composition a, int top, float *scratch) {
    const int width = a.width, end = least(top + STRIP, a.height);
    const int first = most(top - 1, 0), last = least(end + 1, a.height);
    const size_t area = (size_t)a.height * width, plane = (size_t)(STRIP + 2) * width;
    const size_t coarse = area / (COARSE * COARSE);
    /* What is carried is never lifted: a gain that was handed on would be applied again and again. */
    Composition unlifted = a;
    if (a.base) unlifted.maps = NULL;
    float *const target = a.base ? a.base : a.derained;
    float *candidates = scratch, *trusts = candidates + 3 * plane, *rows = trusts + STRIP * width;
    for (int y = a.past ? first : top; y < (a.past ? last : end); y++) {
        const int inside = y >= top && y < end;
        candidate_row(unlifted, y, rows, candidates + (size_t)(y - first) * width, plane,
                      inside ? a.attention + (size_t)y * width : NULL,
                      inside && a.past ? trusts + (size_t)(y - top) * width : NULL);
    }
    for (int y = top; y < end; y++)
        for (int c = 0; c < 3; c++) {
            const float *here = candidates + c * plane + (size_t)(y - first) * width;
            const size_t at = c * area + (size_t)y * width;
            if (a.past)
                blend_row(y > 0 ? here - width : here, here, y + 1 < a.height ? here + width : here,
                          a.past + at, trusts + (size_t)(y - top) * width, width, rows,
                          rows + width + 2, target + at);
            else
                clip_row(here, width, target + at);
            if (!a.base) continue;
            if (a.maps)
                lift_row(a.base + at, a.maps + c * coarse, a.maps + (3 + c) * coarse, a.height, width,
                         y, rows, a.derained + at);
            else
                memcpy(a.derained + at, a.base + at, width * sizeof(float));
        }
}

/* Derained pictures and masks from the network's outputs. `maps` (gains and offsets at an eighth)
 * may be NULL. So may `pasts`; then `known`, which says where there is a past, is not read. With
 * `bases`, which get what is carried, gains and offsets come after the past, otherwise before. */
EXPORT int compose_output(const float *frames, const float *pasts, const void *streaks,
                          const float *maps, const float *known, int batch, int height, int width,
                          int bfloat16, float *derained, float *masks, float *bases, int threads) {
    const size_t area = (size_t)height * width, coarse = area / (COARSE * COARSE);
    const size_t folded = (pasts ? 5 : 4) * area * (bfloat16 ? 2 : 4);
    const int strips = (height + STRIP - 1) / STRIP;
    const size_t room = (4 * STRIP + 10) * (size_t)width;
    float *const scratch = floats(room * threads);
    if (!scratch) return 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int strip = 0; strip < batch * strips; strip++) {
        const size_t one = strip / strips;
        const Composition a = {
            .frame = frames + one * 3 * area,
            .past = pasts ? pasts + one * 3 * area : NULL,
            .maps = maps ? maps + one * 6 * coarse : NULL,
            .known = pasts ? known + one * coarse : NULL,
            .streaks = (const char *)streaks + one * folded,
            .derained = derained + one * 3 * area,
            .attention = masks + one * area,
            .base = bases ? bases + one * 3 * area : NULL,
            .height = height,
            .width = width,
            .bfloat16 = bfloat16,
        };
        compose_strip(a, strip % strips * STRIP, own(scratch, room));
    }
    free(scratch);
    return 0;
}
