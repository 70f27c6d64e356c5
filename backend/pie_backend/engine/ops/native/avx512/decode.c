// Attention of rows of one token over pages, where they lie: nothing is gathered or copied.
#include "decode.h"

// A round's scores and values stay in cache. More queries of one key head are two tasks.
enum { ROUND = 256 /* tokens */, QUERIES = 8 };

typedef struct {
    i64 places[ROUND];  // of each token of the round, in numbers from its head's first
    float largest[QUERIES], total[QUERIES];
    float scores[QUERIES][ROUND];
    bf16 weights[QUERIES][ROUND];
    // Per 32 numbers: the first four of every eight, then the others.
    __m512 sums[QUERIES][MAX_SIZE / 16];
} State;

// One round ahead, a little at a time: whoever asks for much at once has to wait for it. In the order
// of memory, which is when the processor guesses the next lines by itself.
static void fetch_some(const Task *task, const Task *next, i64 token, int keys) {
    const Task *from = token + ROUND < task->length ? task : next;
    const i64 at = from == task ? token + ROUND : next->begin + (token - task->begin) % ROUND;
    const bf16 *plane = keys ? from->keys : from->values;
    const i64 end = min64(at + 16, from->length);
    for (i64 i = at; i < end;) {
        const i64 stop = min64(end, (i / from->page_size + 1) * from->page_size);
        const bf16 *line = plane + place_of(from, i), *last = line + (stop - i) * from->size;
        for (; line < last; line += 32) _mm_prefetch((const char *)line, _MM_HINT_T1);
        i = stop;
    }
}

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

// Scores of tokens [begin, begin + 16) as powers of two; what lies beyond the end is -inf.
static void score(const Task *task, State *state, i64 begin, i64 token, i64 end) {
    const __m512 scale = _mm512_set1_ps(task->scale * 1.44269504f);
    const bf16 *keys[16];
    for (int i = 0; i < 16; i++)
        keys[i] = task->keys + state->places[min64(token + i, end - 1) - begin];
    const __mmask16 seen = first(end - token);
    __m512 bias = _mm512_setzero_ps();
    if (task->bias) bias = _mm512_maskz_loadu_ps(seen, task->bias + token);
    bias = _mm512_mask_blend_ps(seen, _mm512_set1_ps(-INFINITY), bias);
    for (int i = 0; i < task->queries; i++)
        _mm512_storeu_ps(state->scores[i] + token - begin,
                         _mm512_fmadd_ps(products(keys, task->q + i * task->size, task->size), scale,
                                         bias));
}

// Scores to weights against the largest so far, to which what was summed before is brought down.
static void weigh(const Task *task, State *state, i64 count) {
    for (int i = 0; i < task->queries; i++) {
        __m512 most = _mm512_set1_ps(state->largest[i]);
        for (i64 j = 0; j < count; j += 16)
            most = _mm512_max_ps(most, _mm512_loadu_ps(state->scores[i] + j));
        const float largest = _mm512_reduce_max_ps(most);
        const __m512 base = _mm512_set1_ps(largest == -INFINITY ? 0 : largest);  // nothing seen yet
        __m512 total = _mm512_setzero_ps();
        for (i64 j = 0; j < count; j += 16) {
            const __m512 weight = exp2_rough(_mm512_sub_ps(_mm512_loadu_ps(state->scores[i] + j), base));
            store_bf16(state->weights[i] + j, weight);
            total = _mm512_add_ps(total, weight);
        }
        const __m512 shrink = exp2_rough(_mm512_sub_ps(_mm512_set1_ps(state->largest[i]), base));
        state->total[i] = state->total[i] * _mm512_cvtss_f32(shrink) + _mm512_reduce_add_ps(total);
        state->largest[i] = largest;
        for (i64 d = 0; d < task->size / 16; d++)
            state->sums[i][d] = _mm512_mul_ps(state->sums[i][d], shrink);
    }
}

// Adds the weighted values of tokens [begin, end), two at a time. A token that is
// missing at the end weighs nothing.
INLINE void gather(const Task *task, const Task *next, State *state, i64 begin, i64 end,
                   const int queries) {
    for (i64 d = 0; d < task->size; d += 32) {
        __m512 low[QUERIES], high[QUERIES];
        UNROLL for (int i = 0; i < queries; i++) {
            low[i] = state->sums[i][d / 16];
            high[i] = state->sums[i][d / 16 + 1];
        }
        for (i64 token = begin; token < end; token += 2) {
            if (d == 0 && (token - begin) % 16 == 0) fetch_some(task, next, token, 0);
            const i64 *places = state->places + token - begin;
            const bf16 *values = task->values + d;
            const __m512i a = _mm512_loadu_si512(values + places[0]);
            const __m512i b = _mm512_loadu_si512(values + places[token + 1 < end]);
            const __m512bh left = (__m512bh)_mm512_unpacklo_epi16(a, b);
            const __m512bh right = (__m512bh)_mm512_unpackhi_epi16(a, b);
            UNROLL for (int i = 0; i < queries; i++) {
                int32_t both;
                memcpy(&both, state->weights[i] + token - begin, sizeof both);
                const __m512bh weight = (__m512bh)_mm512_set1_epi32(both);
                low[i] = _mm512_dpbf16_ps(low[i], weight, left);
                high[i] = _mm512_dpbf16_ps(high[i], weight, right);
            }
        }
        UNROLL for (int i = 0; i < queries; i++) {
            state->sums[i][d / 16] = low[i];
            state->sums[i][d / 16 + 1] = high[i];
        }
    }
}

static void gather_all(const Task *task, const Task *next, State *state, i64 begin, i64 end) {
#define QUERIES_(n) \
    case n: gather(task, next, state, begin, end, n); break;
    switch (task->queries) {
        QUERIES_(1) QUERIES_(2) QUERIES_(3) QUERIES_(4)
        QUERIES_(5) QUERIES_(6) QUERIES_(7) QUERIES_(8)
    }
#undef QUERIES_
}

static void attend(const Task *task, const Task *next) {
    State state;
    for (int i = 0; i < task->queries; i++)
        resume(task->gathered ? task->gathered + i * GATHERED : 0, task->size, &state.largest[i],
               &state.total[i], state.sums[i]);
    for (i64 begin = task->begin; begin < task->length; begin += ROUND) {
        const i64 end = min64(task->length, begin + ROUND);
        locate(task, &state, begin, end);
        for (i64 token = begin; token < end; token += 16) {
            fetch_some(task, next, token, 1);
            score(task, &state, begin, token, end);
        }
        weigh(task, &state, up_to(end - begin, 16));
        gather_all(task, next, &state, begin, end);
    }
    for (int i = 0; i < task->queries; i++)
        for (i64 d = 0; d < task->size; d += 32) {
            const __m512 share = _mm512_set1_ps(1.0f / state.total[i]);
            const __m512 low = _mm512_mul_ps(state.sums[i][d / 16], share);
            const __m512 high = _mm512_mul_ps(state.sums[i][d / 16 + 1], share);
            store_unpaired(task->out + i * task->size + d, low, high);
        }
}

void attend_part(const Rows *all, Pieces *pieces) {
    const i64 most = pie_has_tiles ? TILE_QUERIES : QUERIES;
    const i64 tasks = all->rows * all->kv_heads * (up_to(all->queries, most) / most);
    for (i64 piece = take_piece(pieces), later; piece < tasks; piece = later) {
        later = take_piece(pieces);  // each thread knows what it will read next
        const Task task = task_of(all, piece, most);
        const Task next = task_of(all, min64(later, tasks - 1), most);
        (pie_has_tiles ? attend_on_tiles : attend)(&task, &next);
    }
}
