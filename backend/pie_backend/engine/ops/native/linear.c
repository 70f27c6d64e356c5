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

static inline __m512 follow(const Job *job, int epilogue, __mmask16 mask, i64 at, __m512 sum) {
    if (epilogue == SILU) return silu_ps(sum);
    if (epilogue == PLAIN) return sum;
    const __m512 other = load_bf16_masked(mask, job->other + at);
    return epilogue == TIMES ? _mm512_mul_ps(sum, other) : _mm512_add_ps(sum, other);
}

static inline void prefetch_tiles(const bf16 *at) {
    const char *line = (const char *)at + AHEAD;
    for (int i = 0; i < 32; i++) _mm_prefetch(line + 64 * i, _MM_HINT_T0);
}

typedef float Sums[4][16][16];  // two tiles for each half of the rows

static inline void clear_sums(int lower) {
    _tile_zero(0);
    _tile_zero(1);
    if (lower) {
        _tile_zero(2);
        _tile_zero(3);
    }
}

static inline void load_sums(Sums sums, int lower) {
    _tile_loadd(0, sums[0], 64);
    _tile_loadd(1, sums[1], 64);
    if (lower) {
        _tile_loadd(2, sums[2], 64);
        _tile_loadd(3, sums[3], 64);
    }
}

static inline void store_sums(Sums sums, int lower) {
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    if (lower) {
        _tile_stored(2, sums[2], 64);
        _tile_stored(3, sums[3], 64);
    }
}

// Adds `steps` times 32 numbers of 32 rows by 32 columns.
static inline void multiply(const bf16 *x, i64 k, const bf16 *weight, i64 steps, int lower,
                            int fresh) {
    for (; steps; steps--, x += 32, weight += 2 * TILE) {
        if (fresh) prefetch_tiles(weight);
        _tile_loadd(4, x, k * 2);
        _tile_loadd(6, weight, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, weight + TILE, 64);
        _tile_dpbf16ps(1, 4, 7);
        if (lower) {
            _tile_loadd(5, x + 16 * k, k * 2);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
}

static inline __attribute__((always_inline)) void finish_as(const int epilogue, const Job *job,
                                                            i64 row, int count, i64 block,
                                                            Sums sums) {
    const i64 column = block * BLOCK;
    const __mmask16 left = first(job->n - column);
    const __mmask16 right = job->n > column + 16 ? first(job->n - column - 16) : 0;
    __m512 biases[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    if (job->bias) {
        biases[0] = _mm512_maskz_loadu_ps(left, job->bias + column);
        biases[1] = _mm512_maskz_loadu_ps(right, job->bias + column + 16);
    }
    for (int i = 0; i < count; i++) {
        const i64 at = (row + i) * job->n + column;
        const float(*own)[16][16] = (const float(*)[16][16])sums + i / 16 * 2;
        const __m512 a = _mm512_add_ps(_mm512_loadu_ps(own[0][i % 16]), biases[0]);
        const __m512 b = _mm512_add_ps(_mm512_loadu_ps(own[1][i % 16]), biases[1]);
        store_bf16_masked(job->y + at, left, follow(job, epilogue, left, at, a));
        store_bf16_masked(job->y + at + 16, right, follow(job, epilogue, right, at + 16, b));
    }
}

static void finish_block(const Job *job, i64 row, int count, i64 block, Sums sums) {
    switch (job->epilogue) {
    case PLAIN: finish_as(PLAIN, job, row, count, block, sums); break;
    case SILU: finish_as(SILU, job, row, count, block, sums); break;
    case TIMES: finish_as(TIMES, job, row, count, block, sums); break;
    case PLUS: finish_as(PLUS, job, row, count, block, sums); break;
    }
}

// Numbers [from, to) of k, of which the first ones clear the sums and the last ones finish them.
typedef struct { i64 from, to; } Part;

static void one_block(const Job *job, i64 row, i64 end, i64 block, Part part, Sums sums,
                      int fresh) {
    const int count = (int)min64(32, end - row), lower = (int)max64(0, count - 16);
    const int ragged = job->rows > 32 && count < 32;
    if (ragged) configure_tiles(count - lower, lower);
    part.from ? load_sums(sums, lower) : clear_sums(lower);
    multiply(job->x + row * job->k + part.from, job->k,
             job->weight + (block * job->k + part.from) * BLOCK, (part.to - part.from) / 32, lower,
             fresh);
    store_sums(sums, lower);
    if (part.to == job->k) finish_block(job, row, count, block, sums);
    if (ragged) configure_tiles(16, 16);
}

// Few rows: each thread streams its share of the weights through, once.
static void few_rows(const Job *job, i64 thread, i64 threads) {
    const i64 blocks = up_to(job->n, BLOCK) / BLOCK;
    Sums sums;
    for (i64 block = blocks * thread / threads; block < blocks * (thread + 1) / threads; block++)
        for (i64 row = 0; row < job->rows; row += 32)
            one_block(job, row, job->rows, block, (Part){0, job->k}, sums, !row);
}

// Many rows: each thread takes some of them. Of the weights it takes as much at a time as stays in
// its first-level cache while rows pass by, and as many rows as stay in the second-level one.
enum { PART = 384, PANEL = 640 << 10 /* bytes */, MANY = 192, MOST = 1024 };

static void many_rows(const Job *job, i64 thread, i64 threads) {
    const i64 blocks = up_to(job->n, BLOCK) / BLOCK, share = up_to(job->rows, 32 * threads) / threads;
    const i64 parts = up_to(job->k, PART) / PART, length = up_to(job->k, parts * 32) / parts;
    const i64 step = min64(MOST, max64(32, PANEL / (job->k * 2) / 32 * 32));
    const i64 last = min64(job->rows, (thread + 1) * share);
    Sums sums[MOST / 32];
    for (i64 first = thread * share; first < last; first += step)
        for (i64 block = 0; block < blocks; block++)
            for (i64 from = 0; from < job->k; from += length) {
                const Part part = {from, min64(from + length, job->k)};
                const i64 end = min64(first + step, last);
                for (i64 row = first; row < end; row += 32)
                    one_block(job, row, end, block, part, sums[(row - first) / 32], row == first);
            }
}

void pie_linear(const bf16 *x, const bf16 *weight, const float *bias, const bf16 *other, bf16 *y,
                i64 rows, i64 n, i64 k, int epilogue) {
    const Job job = {x, weight, other, bias, y, rows, n, k, epilogue};
#pragma omp parallel num_threads(pie_threads)
    {
        const i64 threads = omp_get_num_threads(), thread = omp_get_thread_num();
        configure_tiles((int)min64(16, rows), (int)max64(0, min64(16, rows - 16)));
        (rows < MANY ? few_rows : many_rows)(&job, thread, threads);
        _tile_release();
    }
}
#endif
