// y = x W^T for weights laid out once: [N/32][K/32][2][16 pairs of k][16 n][2], so that 32 outputs
// are one stream of memory and a kilobyte of it is one tile of AMX.
#include "common.h"

#if HAS_AMX

enum { PLAIN, SILU, TIMES, PLUS };
enum { BLOCK = 32, TILE = 512 /* bf16 */, AHEAD = 4096 /* bytes */ };

typedef struct {
    const bf16 *x, *weight, *other;
    const float *bias;
    bf16 *y;
    i64 rows, n, k;
    int epilogue;
} Job;

void pie_pack(const bf16 *weight, bf16 *packed, i64 n, i64 k) {
#pragma omp parallel for num_threads(pie_threads) schedule(static)
    for (i64 block = 0; block < up_to(n, BLOCK) / BLOCK; block++)
        for (i64 tile = 0; tile < k / 32 * 2; tile++) {
            bf16 *out = packed + (block * (k / 32) * 2 + tile) * TILE;
            for (i64 pair = 0; pair < 16; pair++)
                for (i64 column = 0; column < 16; column++) {
                    const i64 row = block * BLOCK + tile % 2 * 16 + column;
                    const i64 from = row * k + tile / 2 * 32 + pair * 2;
                    out[pair * 32 + column * 2] = row < n ? weight[from] : 0;
                    out[pair * 32 + column * 2 + 1] = row < n ? weight[from + 1] : 0;
                }
        }
}

static inline void finish(const Job *job, i64 row, i64 column, __m512 sum) {
    const __mmask16 mask = first(job->n - column);
    const i64 at = row * job->n + column;
    if (job->bias) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, job->bias + column));
    if (job->epilogue == SILU) sum = silu_ps(sum);
    if (job->epilogue == TIMES)
        sum = _mm512_mul_ps(sum, load_bf16_masked(mask, job->other + at));
    if (job->epilogue == PLUS)
        sum = _mm512_add_ps(sum, load_bf16_masked(mask, job->other + at));
    store_bf16_masked(job->y + at, mask, sum);
}

static inline void prefetch_tiles(const bf16 *at) {
    const char *line = (const char *)at + AHEAD;
    for (int i = 0; i < 32; i++) _mm_prefetch(line + 64 * i, _MM_HINT_T0);
}

// Rows [row, row + upper + lower), of which each half is at most 16, by 32 columns.
static void one_block(const Job *job, i64 row, int upper, int lower, i64 block, int fresh) {
    const bf16 *weight = job->weight + block * job->k * BLOCK;
    const bf16 *x = job->x + row * job->k;
    const i64 stride = job->k * 2;
    float sums[4][16][16];
    _tile_zero(0);
    _tile_zero(1);
    if (lower) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (i64 k = 0; k < job->k; k += 32, weight += 2 * TILE) {
        if (fresh) prefetch_tiles(weight);
        _tile_loadd(4, x + k, stride);
        _tile_loadd(6, weight, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, weight + TILE, 64);
        _tile_dpbf16ps(1, 4, 7);
        if (lower) {
            _tile_loadd(5, x + 16 * job->k + k, stride);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    if (lower) {
        _tile_stored(2, sums[2], 64);
        _tile_stored(3, sums[3], 64);
    }
    for (int i = 0; i < upper + lower; i++)
        for (int half = 0; half < 2 && block * BLOCK + half * 16 < job->n; half++)
            finish(job, row + i, block * BLOCK + half * 16,
                   _mm512_loadu_ps(sums[i / 16 * 2 + half][i % 16]));
}

static void all_rows(const Job *job, i64 row, i64 end, i64 block) {
    int fresh = 1;
    for (; row < end; row += 32, fresh = 0) {
        const int upper = (int)min64(16, end - row);
        const int lower = (int)max64(0, min64(16, end - row - 16));
        const int ragged = job->rows > 32 && upper + lower < 32;
        if (ragged) configure_tiles(upper, lower);
        one_block(job, row, upper, lower, block, fresh);
        if (ragged) configure_tiles(16, 16);
    }
}

// So many rows of x that they stay in a core's second-level cache while the weights pass by.
static i64 rows_at_a_time(i64 k) { return max64(32, (1 << 20) / (k * 2) / 32 * 32); }

void pie_linear(const bf16 *x, const bf16 *weight, const float *bias, const bf16 *other, bf16 *y,
                i64 rows, i64 n, i64 k, int epilogue) {
    const Job job = {x, weight, other, bias, y, rows, n, k, epilogue};
    const i64 blocks = up_to(n, BLOCK) / BLOCK, step = rows_at_a_time(k);
#pragma omp parallel num_threads(pie_threads)
    {
        const i64 threads = omp_get_num_threads(), thread = omp_get_thread_num();
        const i64 begin = blocks * thread / threads, end = blocks * (thread + 1) / threads;
        configure_tiles((int)min64(16, rows), (int)max64(0, min64(16, rows - 16)));
        for (i64 row = 0; row < rows; row += step)
            for (i64 block = begin; block < end; block++)
                all_rows(&job, row, min64(rows, row + step), block);
        _tile_release();
    }
}
#endif
