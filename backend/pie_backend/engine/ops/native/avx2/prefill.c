// Causal attention of a row of several tokens: keys and values of the context are laid out as panels
// once a layer, then blocks of queries pass over them with a running softmax.
#include "product.h"

enum { QUERIES = 24, KEYS = 128 /* of one round */ };

typedef struct {
    float q[QUERIES * MAX_SIZE];  // by parts of at most six: [size][rows]
    float scores[MOST_ROWS][KEYS];  // of one part, as powers of two; then weights
    Pair sums[QUERIES][MAX_SIZE / COLUMNS];
    float largest[QUERIES], total[QUERIES];
} State;

static i64 padded_context(const Row *row) { return up_to(row->start + row->tokens, COLUMNS); }

// Keys: [tokens / 16][size][16 tokens]
static bf16 *packed_keys(const Row *row, i64 head) {
    return row->scratch + 2 * head * padded_context(row) * row->size;
}

// Values: [size / 16][tokens][16 numbers]
static bf16 *packed_values(const Row *row, i64 head) {
    return packed_keys(row, head) + padded_context(row) * row->size;
}

// Sixteen tokens from `begin` on; beyond the context there are zeros.
static void pack_tokens(const Row *row, i64 head, i64 begin) {
    static const bf16 zeros[MAX_SIZE];
    const bf16 *keys = row->planes + head * row->plane;
    const bf16 *values = row->planes + (row->kv_heads + head) * row->plane;
    bf16 *to = packed_keys(row, head) + begin * row->size, *value_to = packed_values(row, head);
    for (i64 i = 0; i < COLUMNS; i++) {
        const i64 token = begin + i, page = token / row->page_size;
        const int inside = token < row->start + row->tokens;
        const i64 at = inside ? (row->pages[page] * row->page_size + token % row->page_size) * row->size : 0;
        const bf16 *key = inside ? keys + at : zeros, *value = inside ? values + at : zeros;
        for (i64 d = 0; d < row->size; d++) to[d * COLUMNS + i] = key[d];
        for (i64 d = 0; d < row->size; d += COLUMNS)
            memcpy(value_to + (d * padded_context(row) + token * COLUMNS), value + d, COLUMNS * sizeof(bf16));
    }
}

// Scores of a part's queries with `count` keys from `key` on.
static void score(const Row *row, State *state, const float *q, int rows, i64 head, i64 key, i64 count) {
    for (i64 i = 0; i < count; i += COLUMNS) {
        Pair sums[MOST_ROWS];
        for (int j = 0; j < MOST_ROWS; j++) sums[j] = (Pair){_mm256_setzero_ps(), _mm256_setzero_ps()};
        multiply(rows, 0, q, 0, packed_keys(row, head) + (key + i) * row->size, row->size, 0, sums);
        for (int j = 0; j < rows; j++) {
            const __m256 a = _mm256_unpacklo_ps(sums[j].even, sums[j].odd);
            const __m256 b = _mm256_unpackhi_ps(sums[j].even, sums[j].odd);
            _mm256_storeu_ps(state->scores[j] + i, _mm256_permute2f128_ps(a, b, 0x20));
            _mm256_storeu_ps(state->scores[j] + i + 8, _mm256_permute2f128_ps(a, b, 0x31));
        }
    }
}

// Scores of a query to weights; it sees the first `seen` of these `count` keys.
static void weigh(const Row *row, State *state, int query, float *scores, i64 seen, i64 count) {
    for (i64 i = max64(0, seen); i < count; i++) scores[i] = -INFINITY;
    const float before = state->largest[query];
    __m256 most = _mm256_set1_ps(before);
    for (i64 i = 0; i < count; i += 8) most = _mm256_max_ps(most, _mm256_loadu_ps(scores + i));
    const float largest = most_of(most);
    __m256 total = _mm256_setzero_ps();
    for (i64 i = 0; i < count; i += 8) {
        const __m256 weight = exp2_rough(_mm256_sub_ps(_mm256_loadu_ps(scores + i), _mm256_set1_ps(largest)));
        _mm256_storeu_ps(scores + i, weight);
        total = _mm256_add_ps(total, weight);
    }
    const float shrink = exp2f(before - largest);
    state->total[query] = state->total[query] * shrink + sum_of(total);
    state->largest[query] = largest;
    if (largest == before) return;
    for (i64 d = 0; d < row->size / COLUMNS; d++) {
        Pair *sum = &state->sums[query][d];
        sum->even = _mm256_mul_ps(sum->even, _mm256_set1_ps(shrink));
        sum->odd = _mm256_mul_ps(sum->odd, _mm256_set1_ps(shrink));
    }
}

// The part of `rows` queries from `query` on, of which the first is token `token` of the context.
static void one_part(const Row *row, State *state, int query, int rows, i64 head, i64 token, i64 key,
                     i64 count) {
    score(row, state, state->q + query * row->size, rows, head, key, count);
    for (int i = 0; i < rows; i++)
        weigh(row, state, query + i, state->scores[i], token + i + 1 - key, count);
    for (i64 d = 0; d < row->size / COLUMNS; d++) {
        Pair sums[MOST_ROWS];
        for (int i = 0; i < rows; i++) sums[i] = state->sums[query + i][d];
        const bf16 *panel = packed_values(row, head) + d * COLUMNS * padded_context(row) + key * COLUMNS;
        multiply(rows, 0, state->scores[0], KEYS, panel, count, 0, sums);
        for (int i = 0; i < rows; i++) state->sums[query + i][d] = sums[i];
    }
}

static void finish(const Row *row, const State *state, int count, bf16 *out, i64 width) {
    for (int i = 0; i < count; i++) {
        const __m256 share = _mm256_set1_ps(1.0f / state->total[i]);
        for (i64 d = 0; d < row->size / COLUMNS; d++)
            store_pair(out + i * width + d * COLUMNS,
                       (Pair){_mm256_mul_ps(state->sums[i][d].even, share),
                              _mm256_mul_ps(state->sums[i][d].odd, share)});
    }
}

static void attend(const Row *row, i64 head, i64 query, i64 token) {
    const int count = (int)min64(QUERIES, row->tokens - token);
    const i64 parts = up_to(count, MOST_ROWS) / MOST_ROWS;
    const i64 column = (head * row->queries + query) * row->size;
    State state;
    for (int i = 0; i < count; i++) {
        state.largest[i] = -INFINITY;
        state.total[i] = 0;
        memset(state.sums[i], 0, row->size * sizeof(float));
    }
    for (i64 part = 0; part < parts; part++) {
        const i64 begin = part_begin(count, parts, part), end = part_begin(count, parts, part + 1);
        interleave(row->q + (token + begin) * row->q_stride + column, row->q_stride,
                   (int)(end - begin), row->size, row->scale * 1.44269504f, state.q + begin * row->size);
    }
    const i64 end = row->start + token + count;  // of what the last of them sees
    for (i64 key = 0; key < end; key += KEYS)
        for (i64 part = 0; part < parts; part++) {
            const i64 begin = part_begin(count, parts, part), stop = part_begin(count, parts, part + 1);
            const i64 own_end = row->start + token + stop;
            if (key < own_end)
                one_part(row, &state, (int)begin, (int)(stop - begin), head,
                         row->start + token + begin, key, min64(KEYS, up_to(own_end - key, COLUMNS)));
        }
    const i64 width = row->kv_heads * row->queries * row->size;
    finish(row, &state, count, row->out + token * width + column, width);
}

void attend_causal_part(const Row *row) {
    const i64 blocks = padded_context(row) / COLUMNS, chunks = up_to(row->tokens, QUERIES) / QUERIES;
#pragma omp for collapse(2) schedule(static)
    for (i64 head = 0; head < row->kv_heads; head++)
        for (i64 block = 0; block < blocks; block++) pack_tokens(row, head, block * COLUMNS);
    // The last tokens see most: they come first, so that the short ones even out the end.
#pragma omp for collapse(3) schedule(dynamic)
    for (i64 head = 0; head < row->kv_heads; head++)
        for (i64 chunk = chunks - 1; chunk >= 0; chunk--)
            for (i64 query = 0; query < row->queries; query++)
                attend(row, head, query, chunk * QUERIES);
}
