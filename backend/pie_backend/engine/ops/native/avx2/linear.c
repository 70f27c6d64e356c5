// y = x W^T for weights laid out once: [N/16][K][16], so that sixteen outputs are one stream.
#include "product.h"

// n is rounded up to 32, for the sake of the memory that the other kernels want; so are these.
void pie_pack(const bf16 *weight, bf16 *packed, i64 n, i64 k) {
#pragma omp parallel for num_threads(pie_threads) schedule(static)
    for (i64 row = 0; row < up_to(n, 32); row++) {
        bf16 *out = packed + row / COLUMNS * COLUMNS * k + row % COLUMNS;
        for (i64 i = 0; i < k; i++) out[i * COLUMNS] = row < n ? weight[row * k + i] : 0;
    }
}

// The same order in int8: w = scale * q, |q| <= 127, a scale for each output.
void pie_pack_int8(const bf16 *weight, int8_t *packed, float *scales, i64 n, i64 k) {
#pragma omp parallel for num_threads(pie_threads) schedule(static)
    for (i64 row = 0; row < up_to(n, 32); row++) {
        float most = 0;
        for (i64 i = 0; row < n && i < k; i++) most = fmaxf(most, fabsf(value_of(weight[row * k + i])));
        const float scale = most / 127;
        if (row < n) scales[row] = scale;
        int8_t *out = packed + row / COLUMNS * COLUMNS * k + row % COLUMNS;
        for (i64 i = 0; i < k; i++)
            out[i * COLUMNS] = scale ? (int8_t)lrintf(value_of(weight[row * k + i]) / scale) : 0;
    }
}

static Pair first_of(const float *from, i64 count) {
    if (count >= COLUMNS) return split(from);
    float some[COLUMNS] = {0};
    memcpy(some, from, count * sizeof(float));
    return split(some);
}

INLINE Pair follow(const int epilogue, Pair sum, Pair other) {
    switch (epilogue) {
    case SILU: return (Pair){silu_ps(sum.even), silu_ps(sum.odd)};
    case TIMES: return (Pair){_mm256_mul_ps(sum.even, other.even), _mm256_mul_ps(sum.odd, other.odd)};
    case PLUS: return (Pair){_mm256_add_ps(sum.even, other.even), _mm256_add_ps(sum.odd, other.odd)};
    default: return sum;
    }
}

INLINE void finish_as(const int epilogue, const Job *job, i64 row, int rows, i64 column,
                      const Pair *sums) {
    const i64 count = min64(COLUMNS, job->n - column);
    const Pair none = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    const Pair one = {_mm256_set1_ps(1), _mm256_set1_ps(1)};
    const Pair scale = job->scales ? first_of(job->scales + column, count) : one;
    const Pair bias = job->bias ? first_of(job->bias + column, count) : none;
    for (int i = 0; i < rows; i++) {
        const i64 at = (row + i) * job->n + column;
        const Pair sum = {_mm256_fmadd_ps(sums[i].even, scale.even, bias.even),
                          _mm256_fmadd_ps(sums[i].odd, scale.odd, bias.odd)};
        const int binary = epilogue == TIMES || epilogue == PLUS;
        const Pair other = binary ? load_first(count, job->other + at) : none;
        store_first(count, job->y + at, follow(epilogue, sum, other));
    }
}

static void finish(const Job *job, i64 row, int rows, i64 column, const Pair *sums) {
    switch (job->epilogue) {
    case PLAIN: finish_as(PLAIN, job, row, rows, column, sums); break;
    case SILU: finish_as(SILU, job, row, rows, column, sums); break;
    case TIMES: finish_as(TIMES, job, row, rows, column, sums); break;
    case PLUS: finish_as(PLUS, job, row, rows, column, sums); break;
    }
}

// Rows [from, end), which lie as float32 in `x`, times one panel.
INLINE void one_panel(const Job *job, const int int8, const float *x, i64 from, i64 end, i64 panel) {
    const i64 parts = up_to(end - from, MOST_ROWS) / MOST_ROWS;
    const char *weight = (const char *)job->weight + panel * COLUMNS * job->k * (int8 ? 1 : 2);
    for (i64 part = 0; part < parts; part++) {
        const i64 begin = part_begin(end - from, parts, part);
        const int rows = (int)(part_begin(end - from, parts, part + 1) - begin);
        Pair sums[MOST_ROWS];
        for (int i = 0; i < MOST_ROWS; i++) sums[i] = (Pair){_mm256_setzero_ps(), _mm256_setzero_ps()};
        if (part)
            multiply(rows, int8, x + begin * job->k, job->k, weight, job->k, 0, sums);
        else
            multiply(rows, int8, x + begin * job->k, job->k, weight, job->k, 1, sums);
        finish(job, from + begin, rows, panel * COLUMNS, sums);
    }
}

// A multiple of 8 numbers.
static void to_floats(const bf16 *from, float *to, i64 count) {
    for (i64 i = 0; i < count; i += 8) {
        const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(from + i)));
        _mm256_storeu_ps(to + i, _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)));
    }
}

// `own`: room for a row that is normalised first.
static void load_rows(const Job *job, i64 from, i64 end, float *x, bf16 *own) {
    for (i64 row = from; row < end; row++) {
        const bf16 *source = job->x + row * job->k;
        if (job->norm) norm_row(source, job->norm, own, job->k, job->eps);
        to_floats(job->norm ? own : source, x + (row - from) * job->k, job->k);
    }
}

// So many rows that they stay in a core's second-level cache while the weights pass by.
static i64 rows_at_a_time(i64 k) {
    return max64(1, (1 << 16) / k / MOST_ROWS) * MOST_ROWS;
}

static void panel_of_all(const Job *job, const float *x, i64 from, i64 end, i64 panel) {
    if (job->scales)
        one_panel(job, 1, x, from, end, panel);
    else
        one_panel(job, 0, x, from, end, panel);
}

// A piece is so many panels, for some of the rows.
enum { PANELS = 4 };

static i64 num_blocks(const Job *job) {
    return up_to(job->n, PANELS * COLUMNS) / (PANELS * COLUMNS);
}

// The beginning of what a thread reads next: within a piece each panel asks for what is behind it.
static void ask_for(const Job *job, i64 piece) {
    const i64 size = job->scales ? 1 : 2, block = piece % num_blocks(job);
    const char *at = (const char *)job->weight + block * PANELS * COLUMNS * job->k * size;
    for (i64 i = 0; i < AHEAD; i += 64) _mm_prefetch(at + i, _MM_HINT_T0);
}

i64 linear_part(const Job *job, Pieces *pieces, i64 first, Next next) {
    const i64 panels = up_to(job->n, COLUMNS) / COLUMNS, blocks = num_blocks(job);
    const i64 step = rows_at_a_time(job->k), count = blocks * (up_to(job->rows, step) / step);
    const i64 numbers = min64(job->rows, step) * job->k;
    float *own = pie_own_memory(numbers * sizeof(float) + job->k * sizeof(bf16));
    i64 end = 0;  // of the rows that are loaded
    i64 later = -1;
    for (i64 piece = first, following; piece < count; piece = following) {
        const i64 from = piece / blocks * step, begin = piece % blocks * PANELS;
        const i64 stop = min64(panels, begin + PANELS);
        following = take_piece(pieces);
        if (following >= count && next.job) later = take_piece(next.pieces);
        if (from >= end) {
            end = min64(job->rows, from + step);
            load_rows(job, from, end, own, (bf16 *)(own + numbers));
        }
        for (i64 panel = begin; panel < stop; panel++) {
            if (panel == stop - 1 && following < count) ask_for(job, following);
            if (panel == stop - 1 && later >= 0) ask_for(next.job, later);
            panel_of_all(job, own, from, end, panel);
            if (job->then) panel_of_all(job->then, own, from, end, panel);
        }
    }
    return later < 0 && next.job ? take_piece(next.pieces) : later;
}
