// Decode attention on tiles: keys are the left factor as they lie in their pages, so that one
// product is 16 tokens by all queries; values are paired up by token for the second product.
#include "decode.h"

#if HAS_AMX

enum { ROUND = 1024 /* tokens */, QUERIES = TILE_QUERIES, TILE = 512 /* bf16 */ };

typedef struct {
    bf16 q[MAX_SIZE / 32][16][QUERIES][2];  // pairs of numbers by query
    i64 places[ROUND / 16];                 // of the round's tokens, by sixteens; -1: not in one row
    float products[ROUND][QUERIES];
    float scores[QUERIES][ROUND];
    bf16 weights[QUERIES][ROUND];
    bf16 rows[16][MAX_SIZE];       // tokens that do not lie side by side
    bf16 pairs[2][4][16][16][2];   // values of 32 tokens: tiles of 16 numbers
    float sums[QUERIES][MAX_SIZE]; // numbers in the order that `pair_up` leaves them in
    float largest[QUERIES], total[QUERIES];
} State;

static void shape_tiles(int products) {
    TileConfig config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        // To score: 0-1 sums, 2-3 queries, the rest keys. To sum up: 0-3 sums, 4-5 weights, values.
        const int narrow = products ? i < 4 : 0, low = products ? 0 : i < 6;
        config.rows[i] = low ? QUERIES : 16;
        config.row_bytes[i] = narrow ? QUERIES * 4 : 64;
    }
    load_shapes(&config);
}

static void pack_queries(const Task *task, State *state) {
    memset(state->q, 0, sizeof state->q);
    for (int i = 0; i < task->queries; i++)
        for (i64 d = 0; d < task->size; d += 2)
            memcpy(state->q[d / 32][d % 32 / 2][i], task->q + i * task->size + d, 4);
}

// What a page holds beyond the context are numbers too (see KVCache.clear_pages), weighed with 0.
static void locate(const Task *task, State *state, i64 begin, i64 end) {
    i64 page = begin / task->page_size, offset = begin % task->page_size;
    for (i64 token = begin; token < end; token += 16) {
        const int whole = offset + 16 <= task->page_size;
        state->places[(token - begin) / 16] =
            whole ? (task->pages[page] * task->page_size + offset) * task->size : -1;
        for (offset += 16; offset >= task->page_size; offset -= task->page_size) page++;
    }
}

// Copies 16 tokens that do not lie side by side; what is beyond the context is zeros.
static const bf16 *collect(const Task *task, State *state, const bf16 *plane, i64 begin) {
    for (i64 i = 0; i < 16; i++) {
        bf16 *to = (bf16 *)state->rows + i * task->size;
        if (begin + i < task->length)
            memcpy(to, plane + place_of(task, begin + i), task->size * sizeof(bf16));
        else
            memset(to, 0, task->size * sizeof(bf16));
    }
    return (const bf16 *)state->rows;
}

// Tokens [begin + at, begin + at + 16) as rows of `size` numbers.
static inline const bf16 *rows_of(const Task *task, State *state, const bf16 *plane, i64 begin,
                                  i64 at) {
    const i64 place = state->places[at / 16];
    return place >= 0 ? plane + place : collect(task, state, plane, begin + at);
}

static void multiply_keys(const Task *task, State *state, i64 begin, i64 count) {
    for (i64 at = 0; at < count; at += 16) {
        const bf16 *keys = rows_of(task, state, task->keys, begin, at);
        _tile_zero(0);
        for (i64 d = 0; d < task->size; d += 32) {
            tile_load(4, keys + d, task->size * 2);
            tile_load(2, state->q[d / 32], QUERIES * 4);
            _tile_dpbf16ps(0, 4, 2);
        }
        _tile_stored(0, state->products[at], QUERIES * 4);
    }
}

// Column i of 16 rows of four numbers.
static void turn(const float rows[16][QUERIES], __m512 columns[QUERIES]) {
    const __m512i low = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(2));
    const __m512 a = _mm512_loadu_ps(rows[0]), b = _mm512_loadu_ps(rows[4]);
    const __m512 c = _mm512_loadu_ps(rows[8]), d = _mm512_loadu_ps(rows[12]);
    const __m512 ab = _mm512_permutex2var_ps(a, low, b), cd = _mm512_permutex2var_ps(c, low, d);
    columns[0] = _mm512_shuffle_f32x4(ab, cd, 0x44);
    columns[1] = _mm512_shuffle_f32x4(ab, cd, 0xee);
    const __m512 ef = _mm512_permutex2var_ps(a, high, b), gh = _mm512_permutex2var_ps(c, high, d);
    columns[2] = _mm512_shuffle_f32x4(ef, gh, 0x44);
    columns[3] = _mm512_shuffle_f32x4(ef, gh, 0xee);
}

// Scores of tokens [begin, end) as powers of two; what lies beyond the end is -inf.
static void score(const Task *task, State *state, i64 begin, i64 end) {
    const __m512 scale = _mm512_set1_ps(task->scale * 1.44269504f);
    for (i64 token = begin; token < end; token += 16) {
        __m512 columns[QUERIES];
        turn(&state->products[token - begin], columns);
        const __mmask16 seen = first(end - token);
        __m512 bias = _mm512_setzero_ps();
        if (task->bias) bias = _mm512_maskz_loadu_ps(seen, task->bias + token);
        bias = _mm512_mask_blend_ps(seen, _mm512_set1_ps(-INFINITY), bias);
        for (int i = 0; i < QUERIES; i++)
            _mm512_storeu_ps(state->scores[i] + token - begin,
                             _mm512_fmadd_ps(columns[i], scale, bias));
    }
}

// Scores to weights against the largest so far, to which what was summed before is brought down.
static void weigh(State *state, int i, i64 count, i64 size) {
    __m512 most = _mm512_set1_ps(state->largest[i]);
    for (i64 j = 0; j < count; j += 16)
        most = _mm512_max_ps(most, _mm512_loadu_ps(state->scores[i] + j));
    const float largest = _mm512_reduce_max_ps(most);
    const __m512 base = _mm512_set1_ps(largest == -INFINITY ? 0 : largest);  // nothing seen yet
    __m512 total = _mm512_setzero_ps();
    for (i64 j = 0; j < count; j += 16) {
        const __m512 score = _mm512_loadu_ps(state->scores[i] + j);
        const __m512 weight = exp2_rough(_mm512_sub_ps(score, base));
        store_bf16(state->weights[i] + j, weight);
        total = _mm512_add_ps(total, weight);
    }
    for (i64 j = count; j % 32; j += 16) store_bf16(state->weights[i] + j, _mm512_setzero_ps());
    const __m512 shrink = exp2_rough(_mm512_sub_ps(_mm512_set1_ps(state->largest[i]), base));
    state->total[i] = state->total[i] * _mm512_cvtss_f32(shrink) + _mm512_reduce_add_ps(total);
    state->largest[i] = largest;
    for (i64 d = 0; d < size; d += 16)
        _mm512_storeu_ps(state->sums[i] + d,
                         _mm512_mul_ps(_mm512_loadu_ps(state->sums[i] + d), shrink));
}

// Numbers [d, d + 64) of 32 tokens; each tile's 16 numbers are every other four of 32.
static void pair_up(const Task *task, State *state, bf16 to[4][16][16][2], i64 begin, i64 at,
                    i64 d) {
    for (i64 half = 0; half < 32; half += 16) {
        if (begin + at + half >= task->length) {
            for (int tile = 0; tile < 4; tile++) memset(to[tile][half / 2], 0, 8 * sizeof *to[0]);
            continue;
        }
        const bf16 *from = rows_of(task, state, task->values, begin, at + half) + d;
        for (i64 pair = half / 2; pair < half / 2 + 8; pair++, from += 2 * task->size)
            for (i64 part = 0; part < 2 && d + part * 32 < task->size; part++) {
                const __m512i a = _mm512_loadu_si512(from + part * 32);
                const __m512i b = _mm512_loadu_si512(from + task->size + part * 32);
                _mm512_storeu_si512(to[2 * part][pair], _mm512_unpacklo_epi16(a, b));
                _mm512_storeu_si512(to[2 * part + 1][pair], _mm512_unpackhi_epi16(a, b));
            }
    }
}

// Adds the weighted values of the round's `count` tokens; numbers [d, d + 64).
static void gather(const Task *task, State *state, i64 begin, i64 count, i64 d) {
    const i64 stride = MAX_SIZE * 4;
    float *sums = &state->sums[0][d];
    const int wide = d + 32 < task->size;
    tile_load(0, sums, stride);
    tile_load(1, sums + 16, stride);
    if (wide) {
        tile_load(2, sums + 32, stride);
        tile_load(3, sums + 48, stride);
    }
    for (i64 token = 0; token < count; token += 32) {
        bf16(*pairs)[16][16][2] = state->pairs[token / 32 % 2];
        pair_up(task, state, pairs, begin, token, d);
        tile_load(4, state->weights[0] + token, ROUND * 2);
        tile_load(6, pairs[0], 64);
        _tile_dpbf16ps(0, 4, 6);
        tile_load(7, pairs[1], 64);
        _tile_dpbf16ps(1, 4, 7);
        if (wide) {
            tile_load(6, pairs[2], 64);
            _tile_dpbf16ps(2, 4, 6);
            tile_load(7, pairs[3], 64);
            _tile_dpbf16ps(3, 4, 7);
        }
    }
    _tile_stored(0, sums, stride);
    _tile_stored(1, sums + 16, stride);
    if (wide) {
        _tile_stored(2, sums + 32, stride);
        _tile_stored(3, sums + 48, stride);
    }
}

static void finish(const Task *task, const State *state, int i) {
    const __m512 share = _mm512_set1_ps(1.0f / state->total[i]);
    for (i64 d = 0; d < task->size; d += 32) {
        const __m512 low = _mm512_mul_ps(_mm512_loadu_ps(&state->sums[i][d]), share);
        const __m512 high = _mm512_mul_ps(_mm512_loadu_ps(&state->sums[i][d + 16]), share);
        store_unpaired(task->out + i * task->size + d, low, high);
    }
}

// Asks for a head's first tokens from memory: pages are too short for the processor to guess them.
static inline void fetch(const Task *task, const bf16 *plane) {
    enum { TOKENS = 256, LINE = 32 /* bf16 */ };
    const i64 end = min64(TOKENS, task->length), per_page = task->page_size * task->size;
    for (i64 page = 0; page * task->page_size < end; page++) {
        const bf16 *at = plane + task->pages[page] * per_page;
        for (i64 i = 0; i < per_page; i += LINE) _mm_prefetch((const char *)(at + i), _MM_HINT_T1);
    }
}

void attend_on_tiles(const Task *task, const Task *next) {
    State state;
    fetch(task, task->values);
    for (int i = 0; i < QUERIES; i++) {
        state.largest[i] = -INFINITY;
        state.total[i] = 0;
        memset(state.sums[i], 0, task->size * sizeof(float));
    }
    pack_queries(task, &state);
    for (i64 begin = 0; begin < task->length; begin += ROUND) {
        const i64 end = min64(task->length, begin + ROUND), count = up_to(end - begin, 16);
        locate(task, &state, begin, end);
        shape_tiles(1);
        multiply_keys(task, &state, begin, count);
        if (!begin) fetch(next, next->keys);
        score(task, &state, begin, end);
        for (int i = 0; i < QUERIES; i++) weigh(&state, i, count, task->size);
        shape_tiles(0);
        for (i64 d = 0; d < task->size; d += 64) gather(task, &state, begin, count, d);
    }
    _tile_release();
    for (int i = 0; i < task->queries; i++) finish(task, &state, i);
}

#else

void attend_on_tiles(const Task *task, const Task *next) { (void)task, (void)next; }

#endif
