// Attention of rows of one token over pages, where they lie: nothing is gathered or copied.
#include "decode.h"

// A round's scores and values stay in cache. More queries of one key head are two tasks.
enum { ROUND = 256 /* tokens */, QUERIES = 8 };

typedef struct {
    i64 places[ROUND];  // of each token of the round, in numbers from its head's first
    float largest[QUERIES], total[QUERIES];
    float weights[QUERIES][ROUND];
    __m512 sums[QUERIES][MAX_SIZE / 16];  // per 32 numbers: the even ones, then the odd ones
} State;

static void locate(const Task *task, State *state, i64 begin, i64 end) {
    for (i64 token = begin; token < end;) {
        const i64 page = token / task->page_size, stop = min64(end, (page + 1) * task->page_size);
        i64 place = place_of(task, token);
        for (; token < stop; token++, place += task->size) state->places[token - begin] = place;
    }
}

// Lane i: the sum of all lanes of v[i].
static inline __m512 sums_of(__m512 v[16]) {
    for (int i = 0; i < 8; i++)
        v[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]),
                             _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        const __m512d a = _mm512_castps_pd(v[2 * i]), b = _mm512_castps_pd(v[2 * i + 1]);
        v[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    for (int i = 0; i < 2; i++)
        v[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(v[0], v[1], 0x88),
                         _mm512_shuffle_f32x4(v[0], v[1], 0xdd));
}

static inline __m512 products(const bf16 *const keys[16], const bf16 *q, i64 size) {
    __m512 sums[16];
    for (int i = 0; i < 16; i++) sums[i] = _mm512_setzero_ps();
    for (i64 d = 0; d < size; d += 32) {
        const __m512bh query = (__m512bh)_mm512_loadu_si512(q + d);
        for (int i = 0; i < 16; i++)
            sums[i] = _mm512_dpbf16_ps(sums[i], query, (__m512bh)_mm512_loadu_si512(keys[i] + d));
    }
    return sums_of(sums);
}

// Scores of tokens [begin, end) into state->weights; what lies beyond the end is -inf.
static void score(const Task *task, State *state, i64 begin, i64 end) {
    for (i64 token = begin; token < end; token += 16) {
        const bf16 *keys[16];
        for (int i = 0; i < 16; i++)
            keys[i] = task->keys + state->places[min64(token + i, end - 1) - begin];
        const __mmask16 seen = first(end - token);
        __m512 bias = _mm512_setzero_ps();
        if (task->bias) bias = _mm512_maskz_loadu_ps(seen, task->bias + token);
        bias = _mm512_mask_blend_ps(seen, _mm512_set1_ps(-INFINITY), bias);
        for (int i = 0; i < task->queries; i++)
            _mm512_storeu_ps(state->weights[i] + token - begin,
                             _mm512_fmadd_ps(products(keys, task->q + i * task->size, task->size),
                                             _mm512_set1_ps(task->scale), bias));
    }
}

// Scores to weights against the largest so far, to which what was summed before is brought down.
static void weigh(const Task *task, State *state, i64 count) {
    for (int i = 0; i < task->queries; i++) {
        __m512 most = _mm512_set1_ps(state->largest[i]);
        for (i64 j = 0; j < count; j += 16)
            most = _mm512_max_ps(most, _mm512_loadu_ps(state->weights[i] + j));
        const float largest = _mm512_reduce_max_ps(most);
        if (largest == -INFINITY) {  // nothing seen yet
            memset(state->weights[i], 0, count * sizeof(float));
            continue;
        }
        const float shrink = expf(state->largest[i] - largest);
        __m512 total = _mm512_setzero_ps();
        for (i64 j = 0; j < count; j += 16) {
            const __m512 score = _mm512_loadu_ps(state->weights[i] + j);
            const __m512 weight = _mm512_mask_mov_ps(
                _mm512_setzero_ps(), _mm512_cmp_ps_mask(score, _mm512_set1_ps(-INFINITY), _CMP_GT_OQ),
                exp_ps(_mm512_sub_ps(score, _mm512_set1_ps(largest))));
            _mm512_storeu_ps(state->weights[i] + j, weight);
            total = _mm512_add_ps(total, weight);
        }
        state->total[i] = state->total[i] * shrink + _mm512_reduce_add_ps(total);
        state->largest[i] = largest;
        for (i64 d = 0; d < task->size / 16; d++)
            state->sums[i][d] = _mm512_mul_ps(state->sums[i][d], _mm512_set1_ps(shrink));
    }
}

// Adds the weighted values of tokens [begin, end) for `queries` of them, from `query` on.
static inline __attribute__((always_inline)) void gather(
    const Task *task, State *state, i64 begin, i64 end, int query, const int queries) {
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    for (i64 d = 0; d < task->size; d += 32) {
        __m512 sums[4][2];
        for (int i = 0; i < queries; i++)
            for (int odd = 0; odd < 2; odd++) sums[i][odd] = state->sums[query + i][d / 16 + odd];
        for (i64 token = begin; token < end; token++) {
            const bf16 *at = task->values + state->places[token - begin] + d;
            const __m512i both = _mm512_loadu_si512(at);
            const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
            const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(both, upper));
            for (int i = 0; i < queries; i++) {
                const __m512 weight = _mm512_set1_ps(state->weights[query + i][token - begin]);
                sums[i][0] = _mm512_fmadd_ps(weight, even, sums[i][0]);
                sums[i][1] = _mm512_fmadd_ps(weight, odd, sums[i][1]);
            }
        }
        for (int i = 0; i < queries; i++)
            for (int odd = 0; odd < 2; odd++) state->sums[query + i][d / 16 + odd] = sums[i][odd];
    }
}

static void gather_all(const Task *task, State *state, i64 begin, i64 end) {
    int query = 0;
    for (; query + 4 <= task->queries; query += 4) gather(task, state, begin, end, query, 4);
    switch (task->queries - query) {
    case 1: gather(task, state, begin, end, query, 1); break;
    case 2: gather(task, state, begin, end, query, 2); break;
    case 3: gather(task, state, begin, end, query, 3); break;
    }
}

static void attend(const Task *task, const Task *next) {
    State state;
    fetch(task, task->values);
    for (int i = 0; i < task->queries; i++) {
        state.largest[i] = -INFINITY;
        state.total[i] = 0;
        for (i64 d = 0; d < task->size / 16; d++) state.sums[i][d] = _mm512_setzero_ps();
    }
    for (i64 begin = 0; begin < task->length; begin += ROUND) {
        const i64 end = min64(task->length, begin + ROUND);
        locate(task, &state, begin, end);
        score(task, &state, begin, end);
        if (!begin) fetch(next, next->keys);
        weigh(task, &state, up_to(end - begin, 16));
        gather_all(task, &state, begin, end);
    }
    for (int i = 0; i < task->queries; i++)
        for (i64 d = 0; d < task->size; d += 32) {
            const __m512 share = _mm512_set1_ps(1.0f / state.total[i]);
            const __m512 even = _mm512_mul_ps(state.sums[i][d / 16], share);
            const __m512 odd = _mm512_mul_ps(state.sums[i][d / 16 + 1], share);
            const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
            const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
            _mm512_storeu_si512(task->out + i * task->size + d,
                                _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
}

// q [rows][q_stride] -> out [rows][kv_heads * queries * size]. planes [2][kv_heads][plane];
// pages [rows][width]; lengths [rows]; biases [rows][bias_stride] float32 or null.
void pie_attend_rows(const bf16 *q, const bf16 *planes, const int32_t *pages, const i64 *lengths,
                     const float *biases, bf16 *out, i64 rows, i64 q_stride, i64 kv_heads,
                     i64 queries, i64 size, i64 plane, i64 page_size, i64 width, i64 bias_stride,
                     float scale) {
    const Rows all = {q,       planes, pages, lengths,   biases, out,         rows, q_stride,
                      kv_heads, queries, size, plane, page_size, width, bias_stride, scale};
    const i64 most = pie_has_tiles ? TILE_QUERIES : QUERIES;
    const i64 tasks = rows * kv_heads * (up_to(queries, most) / most);
    // Turn by turn: neighbours are about as long, and each thread knows what it will read next.
#pragma omp parallel num_threads(pie_threads)
    {
        const i64 threads = omp_get_num_threads();
        for (i64 number = omp_get_thread_num(); number < tasks; number += threads) {
            const Task task = task_of(&all, number, most);
            const Task next = task_of(&all, min64(number + threads, tasks - 1), most);
            (pie_has_tiles ? attend_on_tiles : attend)(&task, &next);
        }
    }
}
