/* Gradients of the passes over planes, for training on a CPU.
 *
 * Each is the transpose of a pass in another file. It works row by row without atomics: every row
 * is written by one thread only.
 */
#include "numbers.h"
#include "passes.h"

enum { AREA = FOLD * FOLD, NEIGHBOURS = 9, INSIDE = NEIGHBOURS };

/* Writes row `y` of plane `which` of `planes` to its place among the folded values. */
INLINE void fold(const float *restrict row, int planes, int which, int width, int y, int bfloat16,
                 void *restrict folded) {
    const size_t cell = (size_t)planes * AREA, cells = width / FOLD;
    const size_t first = (size_t)(y / FOLD) * cells * cell + which * AREA + y % FOLD * FOLD;
    if (bfloat16) {
        uint16_t *restrict to = (uint16_t *)folded + first;
        for (size_t x = 0; x < cells; x++)
            for (int k = 0; k < FOLD; k++) to[x * cell + k] = to_bfloat16(row[x * FOLD + k]);
    } else {
        float *restrict to = (float *)folded + first;
        for (size_t x = 0; x < cells; x++)
            for (int k = 0; k < FOLD; k++) to[x * cell + k] = row[x * FOLD + k];
    }
}

/* One row of `planes`, starting at plane `first` of `all`, from the folded gradient; negated if
 * requested. */
CLONES static void unfold_row(const void *folded, int all, int first, int planes, int height, int width,
                              int y, int bfloat16, float *out) {
    for (int c = 0; c < planes; c++)
        unfold(folded, all, first + c, width, y, bfloat16, out + ((size_t)c * height + y) * width);
}

/* The gradient of `planes` planes, starting at plane `first` of `all` folded ones. */
EXPORT int fold_inputs_gradient(const void *folded, int batch, int all, int first, int planes,
                                int height, int width, int bfloat16, float *out, int threads) {
    const size_t area = (size_t)height * width, kind = bfloat16 ? 2 : 4;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int row = 0; row < batch * height; row++)
        unfold_row((const char *)folded + row / height * area * all * kind, all, first, planes, height,
                   width, row % height, bfloat16, out + row / height * area * planes);
    return 0;
}

/* For one picture: the candidate from the frame alone (3 planes) and the trust in the past; their
 * gradients and that of the clamped past; and which neighbour it was clamped to (3 planes). */
typedef struct {
    float *candidate, *trust, *of_candidate, *of_kept, *of_trust, *of_base;
    uint8_t *pick;
} Workspace;

/* Which of 3 x 3 neighbours is the smallest (`sign` 1) or the largest (-1), and its value times
 * `sign`. Rows have one more pixel at either side. */
INLINE void extreme_row(const float *restrict above, const float *restrict here,
                        const float *restrict below, float sign, int width, float *restrict column,
                        uint8_t *restrict column_pick, float *restrict value, uint8_t *restrict pick) {
    for (int x = 0; x < width; x++) {
        float best = sign * here[x];
        uint8_t which = 1;
        const float up = sign * above[x], down = sign * below[x];
        which = up < best ? 0 : which;
        best = lower(best, up);
        which = down < best ? 2 : which;
        column[x] = lower(best, down);
        column_pick[x] = which;
    }
    column[-1] = column[0], column_pick[-1] = column_pick[0];
    column[width] = column[width - 1], column_pick[width] = column_pick[width - 1];
    for (int x = 0; x < width; x++) {
        float best = column[x];
        uint8_t which = 3 + column_pick[x];
        const float left = column[x - 1], right = column[x + 1];
        which = left < best ? column_pick[x - 1] : which;
        best = lower(best, left);
        which = right < best ? 6 + column_pick[x + 1] : which;
        value[x] = lower(best, right);
        pick[x] = which;
    }
}

/* Row `y` of one colour: back through the clamp, the blend and the range of the neighbours.
 * `of_past` may be NULL. `scratch` has room for four rows, with two more pixels at the ends of
 * each. */
CLONES static void blend_gradient_row(const float *restrict above, const float *restrict here,
                                      const float *restrict below, const float *restrict past,
                                      const float *restrict trust, const float *restrict of_out,
                                      int width, float *scratch, float *restrict of_candidate,
                                      float *restrict of_kept, float *restrict of_trust,
                                      uint8_t *restrict pick, float *restrict of_past) {
    float *column = scratch + 1, *low = column + width + 1, *high = low + width;
    uint8_t *column_pick = (uint8_t *)(high + width) + 1;
    uint8_t *low_pick = column_pick + width + 1, *high_pick = low_pick + width;
    extreme_row(above, here, below, 1, width, column, column_pick, low, low_pick);
    extreme_row(above, here, below, -1, width, column, column_pick, high, high_pick);
    for (int x = 0; x < width; x++) {
        const float ceiling = -high[x], floor = low[x];
        const int under = past[x] < floor, over = past[x] > ceiling;
        const float kept = under ? floor : over ? ceiling : past[x];
        const float out = here[x] + (kept - here[x]) * trust[x];
        const float slope = out >= 0 && out <= 1 ? of_out[x] : 0;
        const float through = slope * trust[x];
        of_trust[x] += slope * (kept - here[x]);
        of_candidate[x] = slope - through;
        of_kept[x] = under || over ? through : 0;
        pick[x] = under ? low_pick[x] : over ? high_pick[x] : INSIDE;
        of_past[x] = under || over ? 0 : through;
    }
}

/* The transpose of `spread`: each cell's share of a row of gradients. */
INLINE void gathered(const float *restrict row, int width, int factor, float *restrict out) {
    const int half = factor / 2;
    for (int i = 0; i < width; i++) out[i] = 0;
    for (int k = 0; k < half; k++) {
        out[0] += row[k];
        out[width - 1] += row[width * factor - 1 - k];
    }
    for (int i = 0; i + 1 < width; i++) {
        float near = 0, far = 0;
        for (int k = 0; k < factor; k++) {
            const float value = row[half + i * factor + k], part = (k + 0.5f) / factor;
            near += value * (1 - part);
            far += value * part;
        }
        out[i] += near;
        out[i + 1] += far;
    }
}

/* Row `y` of one colour, if gain and offset come last: the gradients of the carried picture, to
 * which the next frame's is added, and of gain and offset, summed along the row. `scratch` has room
 * for three rows. */
CLONES static void lift_gradient_row(const float *restrict base, const float *gains,
                                     const float *offsets, int height, int width, int y,
                                     const float *restrict of_out, const float *restrict of_carried,
                                     float *restrict scratch, float *restrict of_base,
                                     float *restrict of_gain, float *restrict of_offset) {
    float *restrict gain = scratch, *restrict offset = scratch + width;
    float *restrict small = scratch + 2 * width;
    enlarged_row(gains, height / COARSE, width / COARSE, COARSE, y, small, gain);
    enlarged_row(offsets, height / COARSE, width / COARSE, COARSE, y, small, offset);
    for (int x = 0; x < width; x++) {
        const float out = base[x] * gain[x] + offset[x];
        offset[x] = out >= 0 && out <= 1 ? of_out[x] : 0;
        of_base[x] = offset[x] * gain[x] + (of_carried ? of_carried[x] : 0);
        gain[x] = offset[x] * base[x];
    }
    gathered(gain, width / COARSE, COARSE, of_gain);
    gathered(offset, width / COARSE, COARSE, of_offset);
}

CLONES static void clamp_gradient_row(const float *restrict here, const float *restrict of_out,
                                      int width, float *restrict of_candidate) {
    for (int x = 0; x < width; x++)
        of_candidate[x] = here[x] >= 0 && here[x] <= 1 ? of_out[x] : 0;
}

/* Adds to row `y` the gradients of the neighbours that were clamped to one of its pixels. */
CLONES static void gather_row(const float *restrict of_kept, const uint8_t *restrict pick, int height,
                              int width, int y, float *restrict of_candidate) {
    for (int dy = -1; dy <= 1; dy++) {
        const int row = y + dy;
        if (row < 0 || row >= height) continue;
        const float *restrict values = of_kept + (size_t)row * width;
        const uint8_t *restrict picks = pick + (size_t)row * width;
        for (int dx = -1; dx <= 1; dx++) {
            /* The neighbour at (dx, dy) kept this pixel if it picked the one at (-dx, -dy) of it. */
            const uint8_t wanted = 3 * (1 - dx) + (1 - dy);
            const int first = dx < 0 ? 1 : 0, last = dx > 0 ? width - 1 : width;
            for (int x = first; x < last; x++)
                of_candidate[x] += picks[x + dx] == wanted ? values[x + dx] : 0;
        }
    }
}

/* Row `y` of the gradients of the network's outputs. `columns` are the gradients of its maps,
     * summed along the row, 6 planes of `height` rows; `scratch` has room for 8 rows. */
CLONES static void prediction_gradient_row(Composition a, Workspace w, const float *of_attention, int y,
                                           float *restrict scratch, void *restrict of_streaks,
                                           float *restrict columns) {
    const int width = a.width, height = a.height, planes = a.past ? 5 : 4;
    const size_t area = (size_t)height * width, coarse = area / (COARSE * COARSE);
    const size_t at = (size_t)y * width, line = (size_t)width / COARSE;
    float *restrict attention = scratch, *restrict of_this = scratch + width;
    float *restrict rain = scratch + 2 * width, *restrict gain = scratch + 3 * width;
    float *restrict of_gain = scratch + 4 * width, *restrict of_rain = scratch + 5 * width;
    float *restrict small = scratch + 6 * width;
    unfold(a.streaks, planes, 3, width, y, a.bfloat16, attention);
    for (int x = 0; x < width; x++) {
        attention[x] = sigmoid(attention[x]);
        of_this[x] = of_attention ? of_attention[at + x] : 0;
    }
    for (int c = 0; c < 3; c++) {
        const float *restrict frame = a.frame + c * area + at;
        const float *restrict of_candidate = w.of_candidate + c * area + at;
        unfold(a.streaks, planes, c, width, y, a.bfloat16, rain);
        if (a.maps)
            enlarged_row(a.maps + c * coarse, height / COARSE, width / COARSE, COARSE, y, small, gain);
        else
            for (int x = 0; x < width; x++) gain[x] = 1;
        for (int x = 0; x < width; x++) {
            const float slope = of_candidate[x] * gain[x];
            of_gain[x] = of_candidate[x] * (frame[x] - attention[x] * rain[x]);
            of_rain[x] = -attention[x] * slope;
            of_this[x] -= rain[x] * slope;
        }
        fold(of_rain, planes, c, width, y, a.bfloat16, of_streaks);
        if (!a.maps) continue;
        gathered(of_gain, width / COARSE, COARSE, columns + ((size_t)c * height + y) * line);
        gathered(of_candidate, width / COARSE, COARSE, columns + ((size_t)(3 + c) * height + y) * line);
    }
    for (int x = 0; x < width; x++) of_this[x] *= attention[x] * (1 - attention[x]);
    fold(of_this, planes, 3, width, y, a.bfloat16, of_streaks);
    if (!a.past) return;
    const float *restrict known = a.known + (size_t)(y / COARSE) * (width / COARSE);
    unfold(a.streaks, planes, 4, width, y, a.bfloat16, rain);
    for (int x = 0; x < width; x++) {
        const float trust = sigmoid(rain[x]);
        of_this[x] = w.of_trust[at + x] * known[x / COARSE] * trust * (1 - trust);
    }
    fold(of_this, planes, 4, width, y, a.bfloat16, of_streaks);
}

/* Row `row` of a map's gradient, from the rows of the picture that it affects. */
CLONES static void map_gradient_row(const float *restrict columns, int height, int cells, int row,
                                    float *restrict out) {
    const int rows = height / COARSE, half = COARSE / 2;
    for (int x = 0; x < cells; x++) out[x] = 0;
    const int first = most(row * COARSE - half, 0), last = least((row + 1) * COARSE + half, height);
    for (int y = first; y < last; y++) {
        const float from = upper((y + 0.5f) / COARSE - 0.5f, 0);
        const int above = least((int)from, rows - 1), below = least(above + 1, rows - 1);
        const float part = from - above;
        const float share = (above == row ? 1 - part : 0) + (below == row ? part : 0);
        const float *restrict line = columns + (size_t)y * cells;
        for (int x = 0; x < cells; x++) out[x] += share * line[x];
    }
}

/* The gradient of the carried picture, from that of the derained one: 3 planes `of_base`. */
static void lift_gradient_of(Composition a, const float *of_derained, const float *of_carried,
                             float *scratch, size_t room, float *columns, float *of_base) {
    const int width = a.width, height = a.height, cells = width / COARSE;
    const size_t area = (size_t)height * width, coarse = area / (COARSE * COARSE);
    const size_t half = 3 * (size_t)height * cells;
#pragma omp for schedule(static)
    for (int row = 0; row < 3 * height; row++) {
        const size_t at = (size_t)row * width, c = row / height;
        float *of_gain = columns + (size_t)row * cells;
        if (a.maps)
            lift_gradient_row(a.base + at, a.maps + c * coarse, a.maps + (3 + c) * coarse, height,
                              width, row % height, of_derained + at,
                              of_carried ? of_carried + at : NULL, own(scratch, room), of_base + at,
                              of_gain, of_gain + half);
        else
            for (int x = 0; x < width; x++)
                of_base[at + x] = of_derained[at + x] + (of_carried ? of_carried[at + x] : 0);
    }
}

/* The gradients of one picture, by the calling team of threads. Each thread has `room` floats of
 * `scratch`. */
static void compose_gradient_of(Composition given, Workspace w, const float *of_derained,
                                const float *of_carried, const float *of_attention, float *scratch,
                                size_t room, float *columns, void *of_streaks, float *of_maps,
                                float *of_past) {
    const int width = given.width, height = given.height, cells = width / COARSE;
    const size_t area = (size_t)height * width;
    Composition a = given;
    if (a.base) {
        lift_gradient_of(a, of_derained, of_carried, scratch, room, columns, w.of_base);
        of_derained = w.of_base;
        a.maps = NULL;
    }
#pragma omp for schedule(static)
    for (int y = 0; y < height; y++)
        candidate_row(a, y, own(scratch, room), w.candidate + (size_t)y * width, area, NULL,
                      a.past ? w.trust + (size_t)y * width : NULL);
#pragma omp for schedule(static)
    for (int y = 0; y < height; y++) {
        const size_t at = (size_t)y * width;
        if (a.past) memset(w.of_trust + at, 0, width * sizeof(float));
        for (int c = 0; c < 3; c++) {
            const size_t here = c * area + at;
            const float *row = w.candidate + here;
            if (a.past)
                blend_gradient_row(y > 0 ? row - width : row, row, y + 1 < height ? row + width : row,
                                   a.past + here, w.trust + at, of_derained + here, width,
                                   own(scratch, room), w.of_candidate + here, w.of_kept + here,
                                   w.of_trust + at, w.pick + here, of_past + here);
            else
                clamp_gradient_row(row, of_derained + here, width, w.of_candidate + here);
        }
    }
    if (a.past) {
#pragma omp for schedule(static)
        for (int row = 0; row < 3 * height; row++) {
            const size_t plane = row / height * area;
            gather_row(w.of_kept + plane, w.pick + plane, height, width, row % height,
                       w.of_candidate + (size_t)row * width);
        }
    }
#pragma omp for schedule(static)
    for (int y = 0; y < height; y++)
        prediction_gradient_row(a, w, of_attention, y, own(scratch, room), of_streaks, columns);
    if (!given.maps) return;
#pragma omp for schedule(static)
    for (int row = 0; row < 6 * (height / COARSE); row++) {
        const int map = row / (height / COARSE);
        map_gradient_row(columns + (size_t)map * height * cells, height, cells, row % (height / COARSE),
                         of_maps + (size_t)row * cells);
    }
}

/* The gradients of `compose_output` for the network's outputs and the past, from those of the
 * pictures, of what is carried and of the masks; the last two may be NULL. `maps`, `pasts` and
 * `bases` may be NULL as there, and then so are their gradients. */
EXPORT int compose_output_gradient(const float *frames, const float *pasts, const void *streaks,
                                   const float *maps, const float *known, const float *bases,
                                   const float *of_derained, const float *of_bases,
                                   const float *of_attentions, int batch, int height, int width,
                                   int bfloat16, void *of_streaks, float *of_maps, float *of_pasts,
                                   int threads) {
    const size_t area = (size_t)height * width, coarse = area / (COARSE * COARSE);
    const size_t folded = (pasts ? 5 : 4) * area * (bfloat16 ? 2 : 4);
    const size_t columns = 6 * (size_t)height * (width / COARSE), room = 8 * (size_t)width + 16;
    float *const memory = floats(14 * area + columns + room * threads);
    uint8_t *const pick = malloc(3 * area);
    if (!memory || !pick) {
        free(memory);
        free(pick);
        return 1;
    }
    const Workspace w = {
        .candidate = memory,
        .of_candidate = memory + 3 * area,
        .of_kept = memory + 6 * area,
        .trust = memory + 9 * area,
        .of_trust = memory + 10 * area,
        .of_base = memory + 11 * area,
        .pick = pick,
    };
    float *const gathered_columns = memory + 14 * area, *const scratch = gathered_columns + columns;
#pragma omp parallel num_threads(threads)
    for (int one = 0; one < batch; one++) {
        const Composition a = {
            .frame = frames + one * 3 * area,
            .past = pasts ? pasts + one * 3 * area : NULL,
            .maps = maps ? maps + one * 6 * coarse : NULL,
            .known = pasts ? known + one * coarse : NULL,
            .streaks = (const char *)streaks + one * folded,
            .base = bases ? (float *)bases + one * 3 * area : NULL,
            .height = height,
            .width = width,
            .bfloat16 = bfloat16,
        };
        compose_gradient_of(a, w, of_derained + one * 3 * area,
                            of_bases ? of_bases + one * 3 * area : NULL,
                            of_attentions ? of_attentions + one * area : NULL, scratch, room, gathered_columns,
                            (char *)of_streaks + one * folded, maps ? of_maps + one * 6 * coarse : NULL,
                            pasts ? of_pasts + one * 3 * area : NULL);
    }
    free(memory);
    free(pick);
    return 0;
}

/* Adds the gradient of one moved plane to the pixels that were sampled. */
static void hand_back(const float *restrict of_out, const int32_t *restrict from,
                      const float *restrict wx, const float *restrict wy, int height, int width,
                      float *restrict of_plane) {
    const size_t area = (size_t)height * width;
    memset(of_plane, 0, area * sizeof(float));
    for (size_t i = 0; i < area; i++) {
        float *above = of_plane + from[i], *below = above + width;
        const float lower_part = of_out[i] * wy[i], upper_part = of_out[i] - lower_part;
        const float right_above = upper_part * wx[i], right_below = lower_part * wx[i];
        above[0] += upper_part - right_above;
        above[1] += right_above;
        below[0] += lower_part - right_below;
        below[1] += right_below;
    }
}

/* The gradient of `warp` for its planes; the flow gets none. */
EXPORT int warp_gradient(const float *of_out, int batch, int channels, int height, int width,
                         const float *flow, int cells_y, int cells_x, int finer, float *of_planes,
                         int threads) {
    const size_t area = (size_t)height * width, room = 6 * (size_t)width;
    float *const memory = floats(3 * area + room * threads);
    if (!memory) return 1;
    float *const wx = memory, *const wy = memory + area, *const scratch = memory + 3 * area;
    int32_t *const from = (int32_t *)(memory + 2 * area);
#pragma omp parallel num_threads(threads)
    for (int one = 0; one < batch; one++) {
        const size_t picture = (size_t)one * channels * area;
#pragma omp for schedule(static)
        for (int y = 0; y < height; y++)
            places_row(height, width, flow + (size_t)one * 2 * cells_y * cells_x, cells_y, cells_x,
                       finer, y, own(scratch, room), from + (size_t)y * width, wx + (size_t)y * width,
                       wy + (size_t)y * width);
#pragma omp for schedule(static)
        for (int channel = 0; channel < channels; channel++)
            hand_back(of_out + picture + channel * area, from, wx, wy, height, width,
                      of_planes + picture + channel * area);
    }
    free(memory);
    return 0;
}
