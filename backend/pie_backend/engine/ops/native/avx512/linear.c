// y = x W^T for weights laid out once: [N/32][K/32][2][16 pairs of k][16 n][2], so that 32 outputs
// are one stream of memory and a kilobyte of it is one tile of AMX.
#include "common.h"

#if HAS_AMX

enum { PLAIN, SILU, TIMES, PLUS };
enum { BLOCK = 32, TILE = 512 /* bf16 */, AHEAD = 4096 /* bytes */ };

typedef struct {
    const bf16 *x, *other;
    const void *weight;   // bf16, or int8 where there are scales
    const float *scales;  // [n], or null
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

// The same order in int8: w = scale * q, |q| <= 127, a scale for each output.
void pie_pack_int8(const bf16 *weight, int8_t *packed, float *scales, i64 n, i64 k) {
#pragma omp parallel for num_threads(pie_threads) schedule(static)
    for (i64 row = 0; row < up_to(n, BLOCK); row++) {
        __m512 most = _mm512_setzero_ps();
        for (i64 i = 0; row < n && i < k; i += 16)
            most = _mm512_max_ps(most, _mm512_abs_ps(load_bf16(weight + row * k + i)));
        const float scale = _mm512_reduce_max_ps(most) / 127;
        if (row < n) scales[row] = scale;
        int8_t *out = packed + row / BLOCK * BLOCK * k + row % BLOCK / 16 * TILE + row % 16 * 2;
        for (i64 i = 0; i < k; i++) {
            const uint32_t bits = row < n ? (uint32_t)weight[row * k + i] << 16 : 0;
            float value;
            memcpy(&value, &bits, sizeof value);
            out[i / 32 * 2 * TILE + i % 32 / 2 * 32 + i % 2] =
                scale ? (int8_t)lrintf(value / scale) : 0;
        }
    }
}

// bfloat16 holds every int8. What comes next is asked for from memory meanwhile.
static void widen(const int8_t *from, bf16 *to, i64 count) {
    for (i64 i = 0; i < count; i += 64) {
        _mm_prefetch((const char *)from + i + 2 * AHEAD, _MM_HINT_T0);
        for (i64 half = i; half < i + 64; half += 32) {
            const __m256i bytes = _mm256_loadu_si256((const __m256i *)(from + half));
            const __m512i low = _mm512_cvtepi8_epi32(_mm256_castsi256_si128(bytes));
            const __m512i high = _mm512_cvtepi8_epi32(_mm256_extracti128_si256(bytes, 1));
            _mm512_storeu_si512(to + half, (__m512i)_mm512_cvtne2ps_pbh(
                                               _mm512_cvtepi32_ps(high), _mm512_cvtepi32_ps(low)));
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
        tile_load(4, x, k * 2);
        tile_load(6, weight, 64);
        _tile_dpbf16ps(0, 4, 6);
        tile_load(7, weight + TILE, 64);
        _tile_dpbf16ps(1, 4, 7);
        if (lower) {
            tile_load(5, x + 16 * k, k * 2);
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
    __m512 scales[2] = {_mm512_set1_ps(1), _mm512_set1_ps(1)};
    if (job->scales) {
        scales[0] = _mm512_maskz_loadu_ps(left, job->scales + column);
        scales[1] = _mm512_maskz_loadu_ps(right, job->scales + column + 16);
    }
    if (job->bias) {
        biases[0] = _mm512_maskz_loadu_ps(left, job->bias + column);
        biases[1] = _mm512_maskz_loadu_ps(right, job->bias + column + 16);
    }
    for (int i = 0; i < count; i++) {
        const i64 at = (row + i) * job->n + column;
        const float(*own)[16][16] = (const float(*)[16][16])sums + i / 16 * 2;
        const __m512 a = _mm512_fmadd_ps(_mm512_loadu_ps(own[0][i % 16]), scales[0], biases[0]);
        const __m512 b = _mm512_fmadd_ps(_mm512_loadu_ps(own[1][i % 16]), scales[1], biases[1]);
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

// The lines that a block's results go to, asked for before they are there.
static inline void prefetch_results(const Job *job, i64 row, int count, i64 block) {
    for (int i = 0; i < count; i++)
        __builtin_prefetch(job->y + (row + i) * job->n + block * BLOCK, 1, 3);
}

// Of int8 weights that are needed once: widened a little ahead of the tiles, within the first-level
// cache.
static void multiply_narrow(const Job *job, i64 row, const int8_t *narrow, bf16 *wide, int lower) {
    enum { PART = 128 };
    i64 at = 0, length = min64(PART, job->k);
    widen(narrow, wide, length * BLOCK);
    for (int turn = 0; at < job->k; turn ^= 1) {
        const i64 next = at + length, next_length = min64(PART, job->k - next);
        if (next_length > 0)
            widen(narrow + next * BLOCK, wide + (turn ^ 1) * PART * BLOCK, next_length * BLOCK);
        multiply(job->x + row * job->k + at, job->k, wide + turn * PART * BLOCK, length / 32, lower,
                 0);
        at = next;
        length = next_length;
    }
}

static void one_block(const Job *job, i64 row, i64 end, i64 block, const bf16 *weight,
                      const int8_t *narrow, bf16 *wide, int fresh) {
    const int count = (int)min64(32, end - row), lower = (int)max64(0, count - 16);
    const int ragged = job->rows > 32 && count < 32;
    Sums sums;
    if (ragged) configure_tiles(count - lower, lower);
    clear_sums(lower);
    prefetch_results(job, row, count, block);
    if (narrow)
        multiply_narrow(job, row, narrow, wide, lower);
    else
        multiply(job->x + row * job->k, job->k, weight, job->k / 32, lower, fresh);
    store_sums(sums, lower);
    finish_block(job, row, count, block, sums);
    if (ragged) configure_tiles(16, 16);
}

// So many rows of x that they stay in a core's second-level cache while the weights pass by.
static i64 rows_at_a_time(i64 k) { return max64(32, (1 << 19) / (k * 2) / 32 * 32); }

static void all_rows(const Job *job, i64 from, i64 end, i64 block, bf16 *wide) {
    const i64 begin = block * job->k * BLOCK;
    const int8_t *narrow = job->scales ? (const int8_t *)job->weight + begin : 0;
    const bf16 *weight = job->scales ? wide : (const bf16 *)job->weight + begin;
    if (narrow && end - from > 32) {
        widen(narrow, wide, job->k * BLOCK);
        narrow = 0;
    }
    for (i64 row = from; row < end; row += 32)
        one_block(job, row, end, block, weight, narrow, wide, row == from && !job->scales);
}

// scales: of int8 weights, else null. `wide` holds 32 * max(k, 256) numbers for each thread, of int8 weights.
void pie_linear(const bf16 *x, const void *weight, const float *scales, const float *bias,
                const bf16 *other, bf16 *y, bf16 *wide, i64 rows, i64 n, i64 k, int epilogue) {
    const Job job = {x, other, weight, scales, bias, y, rows, n, k, epilogue};
    const i64 blocks = up_to(n, BLOCK) / BLOCK, step = rows_at_a_time(k);
#pragma omp parallel num_threads(pie_threads)
    {
        const i64 threads = omp_get_num_threads(), thread = omp_get_thread_num();
        const i64 begin = blocks * thread / threads, stop = blocks * (thread + 1) / threads;
        configure_tiles((int)min64(16, rows), (int)max64(0, min64(16, rows - 16)));
        for (i64 from = 0; from < rows; from += step)
            for (i64 block = begin; block < stop; block++)
                all_rows(&job, from, min64(rows, from + step), block, wide + thread * max64(k, 256) * BLOCK);
        _tile_release();
    }
}
#endif
