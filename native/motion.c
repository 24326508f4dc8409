/* Motion of a scene: block matching for large motions, gradient steps for fractions of a pixel.
 * Flow is B x 2 x H/8 x W/8, in cells of an eighth. networks/_motion.py gives the reasons. */
#include "passes.h"

enum { REACH = 3, SIDE = 2 * REACH + 1 };

typedef struct {
    int height, width;
    float *past, *now;
} Level;

static void halve(const float *plane, int height, int width, float *out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int y = 0; y < height / 2; y++)
        halved_row(plane + (size_t)2 * y * width, plane + (size_t)(2 * y + 1) * width, width / 2,
                   out + (size_t)y * (width / 2));
}

/* Sums of 2 * `reach` + 1 neighbours, from `first` to before `last`. A constant reach is
 * unrolled. */
INLINE void window_sums(const float *restrict row, int first, int last, int reach, float share,
                        float *restrict out) {
    for (int x = first; x < last; x++) {
        float sum = row[x];
        for (int k = 1; k <= reach; k++) sum += row[x - k] + row[x + k];
        out[x] = sum * share;
    }
}

CLONES void window_mean_row(const float *restrict plane, int height, int width, int side, int y,
                            float *restrict scratch, float *restrict out) {
    const int reach = side / 2;
    const int top = most(y - reach, 0), end = least(y + reach + 1, height);
    for (int x = 0; x < width; x++) scratch[x] = 0;
    for (int from = top; from < end; from++)
        for (int x = 0; x < width; x++) scratch[x] += plane[(size_t)from * width + x];
    const float full = 1.0f / ((end - top) * side);
    const int first = least(reach, width), last = most(width - reach, first);
    for (int x = 0; x < width; x = x + 1 == first ? last : x + 1) {
        const int left = most(x - reach, 0), right = least(x + reach + 1, width);
        float sum = 0;
        for (int from = left; from < right; from++) sum += scratch[from];
        out[x] = sum / ((end - top) * (right - left));
    }
    if (reach == 1) window_sums(scratch, first, last, 1, full, out);
    else window_sums(scratch, first, last, 2, full, out);
}

static void window_mean(const float *plane, int height, int width, int side, float *scratch,
                        float *out) {
    for (int y = 0; y < height; y++)
        window_mean_row(plane, height, width, side, y, scratch, out + (size_t)y * width);
}

/* The cost of one shift: the mean difference around each cell, plus a small cost for moving. */
CLONES static void shift_cost(Level at, int shift, float *restrict scratch, float *restrict out) {
    const int dy = shift / SIDE - REACH, dx = shift % SIDE - REACH;
    float *differences = scratch, *row_sums = scratch + (size_t)at.height * at.width;
    for (int y = 0; y < at.height; y++) {
        const float *from = at.past + (size_t)most(least(y + dy, at.height - 1), 0) * at.width;
        const float *now = at.now + (size_t)y * at.width;
        for (int x = 0; x < at.width; x++) {
            const float off = from[most(least(x + dx, at.width - 1), 0)] - now[x];
            differences[(size_t)y * at.width + x] = off < 0 ? -off : off;
        }
    }
    window_mean(differences, at.height, at.width, 5, row_sums, out);
    const float price = (float)(dx * dx + dy * dy) * 2e-4f;
    for (int i = 0; i < at.height * at.width; i++) out[i] += price;
}

CLONES static void cheapest(const float *restrict costs, size_t cells, float *restrict flow) {
    for (size_t i = 0; i < cells; i++) {
        float best = costs[i];
        int shift = 0;
        for (int k = 1; k < SIDE * SIDE; k++)
            if (costs[k * cells + i] < best) {
                best = costs[k * cells + i];
                shift = k;
            }
        flow[i] = (float)(shift % SIDE - REACH);
        flow[cells + i] = (float)(shift / SIDE - REACH);
    }
}

/* Moves the past of a level by the flow, with a border of one repeated pixel; returns the sum of
 * the differences to the present. The sum of each row is kept in `sums`, and these are added in
 * order, so the result does not depend on the number of threads. */
static double warp_level(Level at, const float *flow, int cells_y, int cells_x, int cell,
                         float *scratches, float *sums, float *edged, int threads) {
    const size_t wide = at.width + 2;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int y = 0; y < at.height; y++) {
        float *row = edged + (y + 1) * wide + 1;
        warp_row(at.past, 1, at.height, at.width, flow, cells_y, cells_x, cell, y,
                  own(scratches, 6 * (size_t)at.width), row, 0);
        row[-1] = row[0];
        row[at.width] = row[at.width - 1];
        const float *now = at.now + (size_t)y * at.width;
        float rows = 0;
#pragma omp simd reduction(+ : rows)
        for (int x = 0; x < at.width; x++) rows += now[x] - row[x];
        sums[y] = rows;
    }
    double sum = 0;
    for (int y = 0; y < at.height; y++) sum += sums[y];
    memcpy(edged, edged + wide, wide * sizeof(float));
    memcpy(edged + (at.height + 1) * wide, edged + at.height * wide, wide * sizeof(float));
    return sum;
}

/* Slopes of the moved past, differences to the present, and their weights. */
#define SLOPES(x)                                                  \
    const float dx = (row[(x) + 1] - row[(x)-1]) * 0.5f;           \
    const float dy = (row[(x) + wide] - row[(x)-wide]) * 0.5f;     \
    const float error = now[x] - row[x] - veil;                    \
    const float trust = 1 / ((error < 0 ? -error : error) + 0.03f);

/* The five moments of one row of cells, each the mean over the cell's pixels. `scratch`: five
 * rows. */
CLONES static void cell_moments(Level at, const float *restrict edged, float veil, int cell, int cy,
                                float *restrict scratch, float *restrict out, size_t plane) {
    const ptrdiff_t wide = at.width + 2;
    const int columns = at.width / cell;
    float *restrict sums[5];
    for (int k = 0; k < 5; k++) sums[k] = scratch + (size_t)k * at.width;
    memset(scratch, 0, 5 * (size_t)at.width * sizeof(float));
    for (int y = cy * cell; y < (cy + 1) * cell; y++) {
        const float *restrict row = edged + (y + 1) * wide + 1;
        const float *restrict now = at.now + (size_t)y * at.width;
        float *restrict xx = sums[0], *restrict xy = sums[1], *restrict yy = sums[2];
        float *restrict xe = sums[3], *restrict ye = sums[4];
        for (int x = 0; x < at.width; x++) {
            SLOPES(x)
            const float tx = trust * dx, ty = trust * dy;
            xx[x] += tx * dx;
            xy[x] += tx * dy;
            yy[x] += ty * dy;
            xe[x] += tx * error;
            ye[x] += ty * error;
        }
    }
    const float share = 1.0f / (cell * cell);
    for (int k = 0; k < 5; k++)
        for (int x = 0; x < columns; x++) {
            float sum = 0;
            for (int i = 0; i < cell; i++) sum += sums[k][x * cell + i];
            out[k * plane + (size_t)cy * columns + x] = sum * share;
        }
}

CLONES static void step_flow(const float *restrict means, size_t cells, int cell,
                             float *restrict flow) {
    const float *restrict xx = means, *restrict xy = means + cells, *restrict yy = means + 2 * cells;
    const float *restrict xe = means + 3 * cells, *restrict ye = means + 4 * cells;
    for (size_t i = 0; i < cells; i++) {
        const float damping = 1e-3f + 0.02f * (xx[i] + yy[i]);
        const float a = xx[i] + damping, d = yy[i] + damping;
        const float share = 1 / ((a * d - xy[i] * xy[i]) * cell);
        flow[i] += within((d * xe[i] - xy[i] * ye[i]) * share, -1.5f, 1.5f);
        flow[cells + i] += within((a * ye[i] - xy[i] * xe[i]) * share, -1.5f, 1.5f);
    }
}

static void smooth(float *flow, int height, int width, float *scratch) {
    const size_t cells = (size_t)height * width;
    for (int axis = 0; axis < 2; axis++) {
        window_mean(flow + axis * cells, height, width, 3, scratch + cells, scratch);
        memcpy(flow + axis * cells, scratch, cells * sizeof(float));
    }
}

/* Two frames at a half, a quarter, an eighth and a sixteenth, and the memory to find their flow. */
typedef struct {
    Level levels[4];
    int cells_y, cells_x, threads;
    float *edged, *scratch, *moments, *means, *spare, *cost;
} Pyramid;

/* Lays a pyramid out in `memory`; returns the number of floats it takes, also if `memory` is
 * NULL. */
static size_t lay_out(Pyramid *p, float *memory, int height, int width) {
    float *next = memory;
    size_t total = 0;
    for (int k = 0; k < 4; k++) {
        Level *at = &p->levels[k];
        at->height = height >> (k + 1);
        at->width = width >> (k + 1);
        const size_t plane = (size_t)at->height * at->width;
        at->past = memory ? next : NULL;
        at->now = memory ? next + plane : NULL;
        next = memory ? next + 2 * plane : NULL;
        total += 2 * plane;
    }
    const size_t cells = (size_t)p->cells_y * p->cells_x;
    const size_t coarse = (size_t)p->levels[3].height * p->levels[3].width;
    const int half_y = p->levels[0].height, half_x = p->levels[0].width;
    const size_t edges = (size_t)(half_y + 2) * (half_x + 2);
    const size_t rows = 6 * (size_t)p->threads * (half_x + 4);
    const size_t costs = SIDE * SIDE * (3 * coarse + p->levels[3].width);
    if (memory) {
        p->edged = next;
        p->scratch = p->edged + edges;
        p->moments = p->scratch + rows;
        p->means = p->moments + 5 * cells;
        p->spare = p->means + 5 * cells;
        p->cost = p->spare + 5 * cells;
    }
    return total + edges + rows + 15 * cells + costs;
}

static void fill_pyramid(const Pyramid *p, const float *past, const float *now, int channels,
                         int height, int width) {
    const Level half = p->levels[0];
#pragma omp parallel for schedule(static) num_threads(p->threads)
    for (int row = 0; row < 2 * half.height; row++) {
        const int y = row % half.height, is_past = row < half.height;
        opening_row(is_past ? past : now, channels, height, width, y,
                    own(p->scratch, 2 * (size_t)half.width + 4),
                    (is_past ? half.past : half.now) + (size_t)y * half.width);
    }
    for (int k = 1; k < 4; k++) {
        const Level above = p->levels[k - 1], at = p->levels[k];
        halve(above.past, above.height, above.width, at.past, p->threads);
        halve(above.now, above.height, above.width, at.now, p->threads);
    }
}

/* The best of all shifts at a sixteenth, smoothed, in cells of an eighth. */
static void search(const Pyramid *p, float *flow) {
    const Level last = p->levels[3];
    const size_t cells = (size_t)p->cells_y * p->cells_x, coarse = (size_t)last.height * last.width;
    float *const room = p->cost + SIDE * SIDE * coarse;
#pragma omp parallel for schedule(static) num_threads(p->threads)
    for (int shift = 0; shift < SIDE * SIDE; shift++)
        shift_cost(last, shift, room + shift * (coarse + last.width), p->cost + shift * coarse);
    cheapest(p->cost, coarse, p->spare);
    for (int axis = 0; axis < 2; axis++) {
        float *const mean = p->means + axis * coarse;
        window_mean(p->spare + axis * coarse, last.height, last.width, 3, p->moments, mean);
    }
    for (int axis = 0; axis < 2; axis++)
        for (int y = 0; y < p->cells_y; y++) {
            float *row = flow + axis * cells + (size_t)y * p->cells_x;
            enlarged_row(p->means + axis * coarse, last.height, last.width, 2, y, p->moments, row);
            for (int x = 0; x < p->cells_x; x++) row[x] *= 2;
        }
}

/* One gradient step on a level whose cells are of `cell` pixels. */
static void refine(const Pyramid *p, Level at, int cell, float *flow) {
    const int window = cell <= 2 ? 5 : 3;
    const size_t cells = (size_t)p->cells_y * p->cells_x;
    /* The moments come after it, and have room for more than a number a row. */
    const double missing = warp_level(at, flow, p->cells_y, p->cells_x, cell, p->scratch, p->moments,
                                      p->edged, p->threads);
    const float veil = (float)(missing / ((double)at.height * at.width));
#pragma omp parallel for schedule(static) num_threads(p->threads)
    for (int cy = 0; cy < p->cells_y; cy++)
        cell_moments(at, p->edged, veil, cell, cy, own(p->scratch, 5 * (size_t)at.width), p->moments,
                     cells);
#pragma omp parallel for schedule(static) num_threads(p->threads)
    for (int m = 0; m < 5; m++)
        window_mean(p->moments + m * cells, p->cells_y, p->cells_x, window,
                    p->spare + m * p->cells_x, p->means + m * cells);
    step_flow(p->means, cells, cell, flow);
}

EXPORT int estimate_flow(const float *pasts, const float *nows, int batch, int channels, int height,
                         int width, float *flows, int threads) {
    Pyramid p = {.cells_y = height / 8, .cells_x = width / 8, .threads = threads};
    const size_t picture = (size_t)channels * height * width;
    float *const memory = floats(lay_out(&p, NULL, height, width));
    if (!memory) return 1;
    lay_out(&p, memory, height, width);
    for (int one = 0; one < batch; one++) {
        float *flow = flows + (size_t)one * 2 * p.cells_y * p.cells_x;
        fill_pyramid(&p, pasts + one * picture, nows + one * picture, channels, height, width);
        search(&p, flow);
        for (int k = 2; k >= 0; k--) {
            const int cell = 1 << (2 - k);
            for (int step = 0; step < (cell <= 2 ? 2 : 1); step++) refine(&p, p.levels[k], cell, flow);
            smooth(flow, p.cells_y, p.cells_x, p.moments);
        }
    }
    free(memory);
    return 0;
}

/* Sums over one row: weight times each product of two of the slopes, the error and `along`. */
enum { XX, XY, YY, XE, YE, XA, YA, AA, AE, SUMS };

CLONES static void row_sums(Level at, const float *restrict edged, float veil, int y,
                            const float *restrict course_x, const float *restrict course_y, int cell,
                            double *restrict totals) {
    const ptrdiff_t wide = at.width + 2;
    const float *restrict row = edged + (y + 1) * wide + 1;
    const float *restrict now = at.now + (size_t)y * at.width;
    float xx = 0, xy = 0, yy = 0, xe = 0, ye = 0, xa = 0, ya = 0, aa = 0, ae = 0;
#pragma omp simd reduction(+ : xx, xy, yy, xe, ye, xa, ya, aa, ae)
    for (int x = 0; x < at.width; x++) {
        SLOPES(x)
        const float along = (dx * course_x[x] + dy * course_y[x]) * cell;
        const float tx = trust * dx, ty = trust * dy, ta = trust * along;
        xx += tx * dx;
        xy += tx * dy;
        yy += ty * dy;
        xe += tx * error;
        ye += ty * error;
        xa += tx * along;
        ya += ty * along;
        aa += ta * along;
        ae += ta * error;
    }
    totals[XX] = xx, totals[XY] = xy, totals[YY] = yy, totals[XE] = xe, totals[YE] = ye;
    totals[XA] = xa, totals[YA] = ya, totals[AA] = aa, totals[AE] = ae;
}

static void solve(double xx, double xy, double yy, double xe, double ye, double *x, double *y) {
    const double damping = 1e-3 + 0.02 * (xx + yy), a = xx + damping, d = yy + damping;
    const double share = 1 / (a * d - xy * xy);
    *x = (d * xe - xy * ye) * share;
    *y = (a * ye - xy * xe) * share;
}

static double limited(double value, double most_of_it) {
    if (value < -most_of_it) return -most_of_it;
    return value > most_of_it ? most_of_it : value;
}

/* Three numbers for a whole frame: how far the motion continued, and how the view was shifted. */
typedef struct {
    double went, shift_x, shift_y;
} Course;

/* The course after one more step, from the mean products `m` over a level. */
static Course advanced(Course course, const double m[SUMS], int cell) {
    double fx, fy, bx, by;
    solve(m[XX], m[XY], m[YY], m[XE], m[YE], &fx, &fy);
    solve(m[XX], m[XY], m[YY], m[XA], m[YA], &bx, &by);
    /* The means of part * rest and part * part, with part = along - dx bx - dy by and
     * rest = error - dx fx - dy fy, multiplied out. */
    const double both = m[AE] - m[XA] * fx - m[YA] * fy - m[XE] * bx - m[YE] * by +
                        m[XX] * bx * fx + m[XY] * (bx * fy + by * fx) + m[YY] * by * fy;
    const double own = m[AA] - 2 * m[XA] * bx - 2 * m[YA] * by + m[XX] * bx * bx +
                       2 * m[XY] * bx * by + m[YY] * by * by;
    const double more = limited(both / (1.02 * own + 1e-4), 1);
    course.went += more;
    course.shift_x += limited((fx - more * bx) / cell, 1.5);
    course.shift_y += limited((fy - more * by) / cell, 1.5);
    return course;
}

/* The mean products over a level; rows are added in order. `sums` has room for SUMS values per
 * row. */
static void mean_products(Level at, const float *edged, float veil, const float *courses, int cell,
                          double *sums, double m[SUMS], int threads) {
    const float *course_x = courses, *course_y = courses + (size_t)at.height * at.width;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int y = 0; y < at.height; y++)
        row_sums(at, edged, veil, y, course_x + (size_t)y * at.width,
                 course_y + (size_t)y * at.width, cell, sums + (size_t)y * SUMS);
    memset(m, 0, SUMS * sizeof(double));
    const double pixels = (double)at.height * at.width;
    for (int y = 0; y < at.height; y++)
        for (int k = 0; k < SUMS; k++) m[k] += sums[(size_t)y * SUMS + k] / pixels;
}

/* How far `motions` continued this time, and how the whole view was shifted in addition. `pasts`
 * and `nows` are grey, at a quarter of the size. */
EXPORT int propagate_flow(const float *motions, const float *pasts, const float *nows, int batch,
                          int height, int width, float *flows, int threads) {
    const int cells_y = height / 2, cells_x = width / 2;
    const size_t cells = (size_t)cells_y * cells_x, plane = (size_t)height * width;
    const size_t edges = (size_t)(height + 2) * (width + 2), rows = 6 * (size_t)threads * width;
    float *const memory = floats(2 * cells + 2 * plane + edges + rows);
    double *const sums = malloc(sizeof(double) * SUMS * (size_t)height);
    if (!memory || !sums) {
        free(memory);
        free(sums);
        return 1;
    }
    float *eighth = memory, *courses = eighth + 2 * cells, *edged = courses + 2 * plane;
    float *scratch = edged + edges;
    for (int one = 0; one < batch; one++) {
        const float *motion = motions + one * 2 * cells;
        float *flow = flows + one * 2 * cells;
        Course course = {.went = 1};
        memcpy(flow, motion, 2 * cells * sizeof(float));
        for (int cell = 1; cell <= 2; cell++) {
            Level at = {height, width, (float *)pasts + one * plane, (float *)nows + one * plane};
            if (cell == 1) {
                halve(at.past, height, width, eighth, threads);
                halve(at.now, height, width, eighth + cells, threads);
                at = (Level){cells_y, cells_x, eighth, eighth + cells};
            }
            for (int row = 0; row < 2 * at.height; row++)
                enlarged_row(motion + row / at.height * cells, cells_y, cells_x, cell,
                             row % at.height, scratch, courses + (size_t)row * at.width);
            for (int step = 0; step < 3; step++) {
                const double missing = warp_level(at, flow, cells_y, cells_x, cell, scratch,
                                                  (float *)sums, edged, threads);
                const float veil = (float)(missing / ((double)at.height * at.width));
                double m[SUMS];
                mean_products(at, edged, veil, courses, cell, sums, m, threads);
                course = advanced(course, m, cell);
                for (size_t i = 0; i < cells; i++) {
                    flow[i] = (float)(course.went * motion[i] + course.shift_x);
                    flow[cells + i] = (float)(course.went * motion[cells + i] + course.shift_y);
                }
            }
        }
    }
    free(memory);
    free(sums);
    return 0;
}
