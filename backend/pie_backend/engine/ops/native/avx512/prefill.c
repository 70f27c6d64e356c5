// Causal attention of a row of several tokens: keys and values of the context are laid out once a
// layer, then blocks of 32 queries pass over them with a running softmax.
#include "product.h"

enum { QUERIES = 32, KEYS = 128 /* of one round */, SIZE = MAX_SIZE };

typedef struct {
    bf16 q[(QUERIES + MOST_ROWS) * SIZE];  // interleaved, unless there are tiles
    float scores[QUERIES][KEYS];
    bf16 weights[QUERIES][KEYS];
    float sums[QUERIES][SIZE];
    float largest[QUERIES], total[QUERIES];
} State;

static i64 padded_context(const Row *row) { return up_to(row->start + row->tokens, 32); }

static bf16 *packed_keys(const Row *row, i64 head) {
    return row->scratch + 2 * head * padded_context(row) * row->size;
}

static bf16 *packed_values(const Row *row, i64 head) {
    return packed_keys(row, head) + padded_context(row) * row->size;
}

// Of 32 tokens from `begin` on: where each one's numbers are, or a row of zeros.
static void locate(const Row *row, const bf16 *plane, i64 begin, const bf16 *found[32]) {
    static const bf16 zeros[SIZE];
    for (i64 i = 0; i < 32; i++) {
        const i64 token = begin + i, page = token / row->page_size;
        found[i] = token < row->start + row->tokens
            ? plane + (row->pages[page] * row->page_size + token % row->page_size) * row->size
            : zeros;
    }
}

// [16 tokens] tiles of 32 numbers each: pairs of numbers by token.
static void pack_keys(const Row *row, i64 head, i64 begin) {
    const bf16 *from[32];
    locate(row, row->planes + head * row->plane, begin, from);
    uint32_t *to = (uint32_t *)(packed_keys(row, head) + begin * row->size);
    for (int half = 0; half < 2; half++)
        for (i64 d = 0; d < row->size; d += 32, to += TILE / 2)
            for (int token = 0; token < 16; token++) {
                uint32_t pairs[16];
                memcpy(pairs, from[half * 16 + token] + d, sizeof pairs);
                for (int pair = 0; pair < 16; pair++) to[pair * 16 + token] = pairs[pair];
            }
}

// [32 tokens] tiles of 16 numbers each: pairs of tokens by number.
static void pack_values(const Row *row, i64 head, i64 begin) {
    const bf16 *from[32];
    locate(row, row->planes + (row->kv_heads + head) * row->plane, begin, from);
    bf16 *to = packed_values(row, head) + begin * row->size;
    for (i64 d = 0; d < row->size; d += 16, to += TILE)
        for (int pair = 0; pair < 16; pair++)
            for (int i = 0; i < 16; i++) {
                to[pair * 32 + i * 2] = from[pair * 2][d + i];
                to[pair * 32 + i * 2 + 1] = from[pair * 2 + 1][d + i];
            }
}

// Some of a block's queries, which are computed at one time.
typedef struct {
    Left q;
    int first;
} Part;

// scores = q k^T for keys [begin, begin + count), count a multiple of 32
static void score(const Row *row, State *state, const Part *part, const bf16 *keys, i64 count) {
    for (i64 key = 0; key < count; key += 32) {
        const bf16 *left = keys + key * row->size;
        const Panel panel = {left, left + 16 * row->size, TILE, 0, 0};
        float *scores = &state->scores[part->first][key];
        begin_sums(part->q.rows, scores, KEYS, 1);
        add_product(part->q, INTERLEAVED, panel, 32, row->size / 32, scores, KEYS);
        end_sums(part->q.rows, scores, KEYS);
    }
}

static inline __mmask16 seen_of(i64 seen, i64 key) { return key < seen ? first(seen - key) : 0; }

// Scores of query i to weights, as powers of two; it sees the first `seen` of these `count` keys.
static void weigh(const Row *row, State *state, int i, i64 seen, i64 count) {
    const __m512 scale = _mm512_set1_ps(row->scale * 1.44269504f);
    __m512 most = _mm512_set1_ps(-INFINITY);
    for (i64 key = 0; key < count; key += 16)
        most = _mm512_mask_max_ps(most, seen_of(seen, key), most,
                                  _mm512_loadu_ps(&state->scores[i][key]));
    const float before = state->largest[i];
    const float largest = fmaxf(before, _mm512_reduce_max_ps(_mm512_mul_ps(most, scale)));
    const __m512 base = _mm512_set1_ps(largest);
    __m512 total = _mm512_setzero_ps();
    for (i64 key = 0; key < count; key += 16) {
        const __m512 raw = _mm512_loadu_ps(&state->scores[i][key]);
        const __m512 weight = _mm512_maskz_mov_ps(
            seen_of(seen, key), exp2_rough(_mm512_fmsub_ps(raw, scale, base)));
        store_bf16(&state->weights[i][key], weight);
        total = _mm512_add_ps(total, weight);
    }
    state->largest[i] = largest;
    if (largest == before) {
        state->total[i] += _mm512_reduce_add_ps(total);
        return;
    }
    const __m512 shrink = exp2_rough(_mm512_set1_ps(before - largest));
    state->total[i] = state->total[i] * _mm512_cvtss_f32(shrink) + _mm512_reduce_add_ps(total);
    for (i64 d = 0; d < row->size; d += 16)
        _mm512_storeu_ps(&state->sums[i][d],
                         _mm512_mul_ps(_mm512_loadu_ps(&state->sums[i][d]), shrink));
}

// sums += weights v for `count` keys
static void gather(const Row *row, State *state, const Part *part, const bf16 *values, i64 count) {
    const Left weights = {state->weights[part->first], KEYS, part->q.rows};
    for (i64 d = 0; d < row->size; d += 32) {
        const bf16 *tile = values + d * 32;
        const Panel panel = {tile, tile + TILE, 32 * row->size, 0, 0};
        float *sums = &state->sums[part->first][d];
        begin_sums(weights.rows, sums, SIZE, 0);
        add_product(weights, KEYS, 2, panel, 32, count / 32, sums, SIZE);
        end_sums(weights.rows, sums, SIZE);
    }
}

static i64 make_parts(const Row *row, State *state, const bf16 *q, int count, Part *parts) {
    const i64 num = up_to(count, rows_at_once()) / rows_at_once();
    for (i64 i = 0; i < num; i++) {
        const int begin = (int)part_begin(count, num, i), rows = (int)part_begin(count, num, i + 1) - begin;
        const bf16 *from = q + begin * row->q_stride;
        bf16 *own = state->q + i * MOST_ROWS * row->size;
        if (!pie_has_tiles) interleave(from, row->q_stride, rows, row->size, own);
        parts[i] = (Part){{pie_has_tiles ? from : own, row->q_stride, rows}, begin};
    }
    return num;
}

static void attend(const Row *row, i64 head, i64 query, i64 token) {
    const int count = (int)min64(QUERIES, row->tokens - token);
    const i64 column = (head * row->queries + query) * row->size;
    const bf16 *q = row->q + token * row->q_stride + column;
    const i64 end = row->start + token + count;  // of what the last of them sees
    State state;
    for (int i = 0; i < count; i++) {
        state.largest[i] = -INFINITY;
        state.total[i] = 0;
        memset(state.sums[i], 0, row->size * sizeof(float));
    }
    Part parts[(QUERIES + MOST_ROWS - 1) / MOST_ROWS];
    const i64 num_parts = make_parts(row, &state, q, count, parts);
    configure_tiles(count);
    for (i64 key = 0; key < end; key += KEYS) {
        const i64 keys = min64(KEYS, up_to(end - key, 32));
        for (i64 i = 0; i < num_parts; i++)
            score(row, &state, parts + i, packed_keys(row, head) + key * row->size, keys);
        for (int i = 0; i < count; i++)
            weigh(row, &state, i, row->start + token + i + 1 - key, keys);
        for (i64 i = 0; i < num_parts; i++)
            gather(row, &state, parts + i, packed_values(row, head) + key * row->size, keys);
    }
    const i64 width = row->kv_heads * row->queries * row->size;
    for (int i = 0; i < count; i++)
        for (i64 d = 0; d < row->size; d += 16)
            store_bf16(row->out + (token + i) * width + column + d,
                       _mm512_mul_ps(_mm512_loadu_ps(&state.sums[i][d]),
                                     _mm512_set1_ps(1.0f / state.total[i])));
}

void attend_causal_part(const Row *row) {
    const i64 blocks = padded_context(row) / 32, chunks = up_to(row->tokens, QUERIES) / QUERIES;
#pragma omp for collapse(2) schedule(static)
    for (i64 head = 0; head < row->kv_heads; head++)
        for (i64 block = 0; block < blocks; block++) {
            pack_keys(row, head, block * 32);
            pack_values(row, head, block * 32);
        }
    // The last tokens see most: they come first, so that the short ones even out the end.
#pragma omp for collapse(3) schedule(dynamic)
    for (i64 head = 0; head < row->kv_heads; head++)
        for (i64 chunk = chunks - 1; chunk >= 0; chunk--)
            for (i64 query = 0; query < row->queries; query++)
                attend(row, head, query, chunk * QUERIES);
    release_tiles();
}
