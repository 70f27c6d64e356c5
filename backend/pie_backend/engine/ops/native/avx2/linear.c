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

// Rows [from, end), which lie as float32 in `x` part by part, times one panel.
INLINE void one_panel(const Job *job, const int int8, const float *x, i64 from, i64 end, i64 panel) {
    const i64 parts = up_to(end - from, MOST_ROWS) / MOST_ROWS;
    const char *weight = (const char *)job->weight + panel * COLUMNS * job->k * (int8 ? 1 : 2);
    for (i64 part = 0; part < parts; part++) {
        const i64 begin = part_begin(end - from, parts, part);
        const int rows = (int)(part_begin(end - from, parts, part + 1) - begin);
        Pair sums[MOST_ROWS];
        for (int i = 0; i < MOST_ROWS; i++) sums[i] = (Pair){_mm256_setzero_ps(), _mm256_setzero_ps()};
        if (part)
            multiply(rows, int8, x + begin * job->k, 0, weight, job->k, 0, sums);
        else
            multiply(rows, int8, x + begin * job->k, 0, weight, job->k, 1, sums);
        finish(job, from + begin, rows, panel * COLUMNS, sums);
    }
}

// `own`: room for the rows, and for six more that are normalised first.
static void load_rows(const Job *job, i64 from, i64 end, float *x, bf16 *own) {
    const i64 parts = up_to(end - from, MOST_ROWS) / MOST_ROWS;
    for (i64 part = 0; part < parts; part++) {
        const i64 begin = part_begin(end - from, parts, part);
        const int rows = (int)(part_begin(end - from, parts, part + 1) - begin);
        const bf16 *source = job->x + (from + begin) * job->k;
        for (int i = 0; job->norm && i < rows; i++)
            norm_row(source + i * job->k, job->norm, own + i * job->k, job->k, job->eps);
        interleave(job->norm ? own : source, job->k, rows, job->k, 1, x + begin * job->k);
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

// Each thread has its share of the outputs, whatever pieces are left.
i64 linear_part(const Job *job, Pieces *pieces, i64 first, Next next) {
    (void)pieces, (void)first, (void)next;
    const i64 panels = up_to(job->n, COLUMNS) / COLUMNS, step = rows_at_a_time(job->k);
    const i64 threads = omp_get_num_threads(), thread = omp_get_thread_num();
    const i64 begin = panels * thread / threads, stop = panels * (thread + 1) / threads;
    const i64 numbers = min64(job->rows, step) * job->k;
    float *own = pie_own_memory(numbers * sizeof(float) + MOST_ROWS * job->k * sizeof(bf16));
    for (i64 from = 0; from < job->rows; from += step) {
        const i64 end = min64(job->rows, from + step);
        load_rows(job, from, end, own, (bf16 *)(own + numbers));
        for (i64 panel = begin; panel < stop; panel++) {
            panel_of_all(job, own, from, end, panel);
            if (job->then) panel_of_all(job->then, own, from, end, panel);
        }
    }
    return 0;
}
