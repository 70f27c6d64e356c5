// Attention to pages that several rows of one token begin with: keys are read once for up to 32 queries
// of them, which are the columns of one product; what comes of it is where each row goes on.
#include "decode.h"

enum { LANES = 32 /* queries */, ROUND = 128 /* tokens */, AT_ONCE = 8 };

typedef struct {
    const Rows *all;
    const int32_t *members;
    i64 head, first, begin, end;  // its first query among those of all members; tokens
    int queries;
} Part;

typedef struct {
    int32_t q[MAX_SIZE / 2][LANES];  // pairs of numbers by query
    i64 places[ROUND];
    float scores[ROUND][LANES];
    int32_t weights[ROUND / 2][LANES];  // of two tokens
    // Per 32 numbers: the first four of every eight, then the others.
    __m512 sums[LANES][MAX_SIZE / 16];
    float largest[LANES], total[LANES];
} State;

static i64 parts_of(const Rows *all, i64 members) {
    return all->kv_heads * (up_to(members * all->queries, LANES) / LANES);
}

// Of groups [first, last), part `number` of all; 0 when there are not so many.
static int find_part(const Rows *all, i64 first, i64 last, i64 number, Part *part) {
    for (const i64 *group = all->together->groups + 4 * first; first < last; first++, group += 4) {
        const i64 parts = parts_of(all, group[1]), blocks = parts / all->kv_heads;
        if (number < parts) {
            const i64 begin = number % blocks * LANES, left = group[1] * all->queries - begin;
            *part = (Part){all, all->together->members + group[0], number / blocks, begin, group[2],
                           group[3], (int)min64(LANES, left)};
            return 1;
        }
        number -= parts;
    }
    return 0;
}

static i64 row_of(const Part *part, int i) { return part->members[(part->first + i) / part->all->queries]; }

// Among all heads of the row.
static i64 query_of(const Part *part, int i) {
    return part->head * part->all->queries + (part->first + i) % part->all->queries;
}

static void begin_part(const Part *part, State *state) {
    const i64 size = part->all->size;
    memset(state->q, 0, size / 2 * sizeof state->q[0]);
    for (int i = 0; i < part->queries; i++) {
        const i64 row = row_of(part, i), query = query_of(part, i);
        const bf16 *q = part->all->q + row * part->all->q_stride + query * size;
        for (i64 pair = 0; pair < size / 2; pair++) memcpy(&state->q[pair][i], q + 2 * pair, 4);
        resume(part->begin ? gathered_of(part->all, row, query) : 0, size, &state->largest[i],
               &state->total[i], state->sums[i]);
    }
    for (int i = part->queries; i < LANES; i++) state->largest[i] = state->total[i] = 0;
}

static void end_part(const Part *part, const State *state) {
    for (int i = 0; i < part->queries; i++) {
        float *out = gathered_of(part->all, row_of(part, i), query_of(part, i));
        for (i64 d = 0; d < part->all->size / 16; d++) _mm512_storeu_ps(out + d * 16, state->sums[i][d]);
        out[MAX_SIZE] = state->largest[i];
        out[MAX_SIZE + 1] = state->total[i];
    }
}

// Of tokens that lie side by side, with sixteen queries or, when `wide`, all of them.
INLINE void score_some(const State *state, const bf16 *keys, i64 size, const int tokens,
                       const int wide, float (*scores)[LANES]) {
    __m512 left[AT_ONCE], right[AT_ONCE];
    UNROLL for (int i = 0; i < tokens; i++) left[i] = right[i] = _mm512_setzero_ps();
    for (i64 pair = 0; pair < size / 2; pair++) {
        const __m512bh q = (__m512bh)_mm512_loadu_si512(state->q[pair]);
        const __m512bh more = (__m512bh)_mm512_loadu_si512(state->q[pair] + 16);
        UNROLL for (int i = 0; i < tokens; i++) {
            int32_t both;
            memcpy(&both, keys + i * size + 2 * pair, sizeof both);
            const __m512bh key = (__m512bh)_mm512_set1_epi32(both);
            left[i] = _mm512_dpbf16_ps(left[i], key, q);
            if (wide) right[i] = _mm512_dpbf16_ps(right[i], key, more);
        }
    }
    UNROLL for (int i = 0; i < tokens; i++) {
        _mm512_storeu_ps(scores[i], left[i]);
        if (wide) _mm512_storeu_ps(scores[i] + 16, right[i]);
    }
}

static void score_as(const State *state, const bf16 *keys, i64 size, int tokens, int wide,
                     float (*scores)[LANES]) {
#define TOKENS(n)                                                        \
    case n:                                                              \
        if (wide) score_some(state, keys, size, n, 1, scores);           \
        else score_some(state, keys, size, n, 0, scores);                \
        break;
    switch (tokens) {
        TOKENS(1) TOKENS(2) TOKENS(3) TOKENS(4) TOKENS(5) TOKENS(6) TOKENS(7) TOKENS(8)
    }
#undef TOKENS
}

static void fetch(const Part *part, const bf16 *plane, i64 begin, i64 end) {
    const Rows *all = part->all;
    const int32_t *pages = all->pages + part->members[0] * all->width;
    for (i64 token = begin; token < min64(end, part->end);) {
        const i64 page = token / all->page_size, stop = min64(end, (page + 1) * all->page_size);
        const bf16 *line = plane + (pages[page] * all->page_size + token % all->page_size) * all->size;
        const bf16 *last = line + (stop - token) * all->size;
        for (; line < last; line += 32) _mm_prefetch((const char *)line, _MM_HINT_T1);
        token = stop;
    }
}

static const bf16 *keys_of(const Part *part) { return part->all->planes + part->head * part->all->plane; }

static const bf16 *values_of(const Part *part) {
    return keys_of(part) + part->all->kv_heads * part->all->plane;
}

// Values of tokens [token, token + count), and keys of one round later, be it of the next part.
static void fetch_some(const Part *part, const Part *next, i64 token, i64 count) {
    fetch(part, values_of(part), token, token + count);
    const i64 later = token + ROUND;
    if (later < part->end) {
        fetch(part, keys_of(part), later, later + count);
    } else if (next) {
        const i64 at = next->begin + (token - part->begin) % ROUND;
        fetch(next, keys_of(next), at, at + count);
    }
}

// Scores of tokens [begin, end), page by page, and where the tokens are.
static void score(const Part *part, const Part *next, State *state, i64 begin, i64 end) {
    const Rows *all = part->all;
    const int32_t *pages = all->pages + part->members[0] * all->width;
    for (i64 token = begin; token < end;) {
        const i64 page = token / all->page_size, stop = min64(end, (page + 1) * all->page_size);
        i64 place = (pages[page] * all->page_size + token % all->page_size) * all->size;
        while (token < stop) {
            const int count = (int)min64(AT_ONCE, stop - token);
            fetch_some(part, next, token, count);
            score_as(state, keys_of(part) + place, all->size, count, part->queries > 16, state->scores + token - begin);
            for (int i = 0; i < count; i++, token++, place += all->size) state->places[token - begin] = place;
        }
    }
}

// Two weights in bfloat16, the first one in the lower half.
static inline __m512i paired(__m512 first, __m512 second) {
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(first));
    const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(second));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// Scores of sixteen queries from `lane` on to weights against the largest so far, to which what was
// summed before is brought down.
static void weigh(const Part *part, State *state, int lane, i64 count) {
    const __m512 scale = _mm512_set1_ps(part->all->scale * 1.44269504f);
    const __m512 before = _mm512_loadu_ps(state->largest + lane);
    __m512 most = _mm512_set1_ps(-INFINITY);
    for (i64 i = 0; i < count; i++) most = _mm512_max_ps(most, _mm512_loadu_ps(state->scores[i] + lane));
    const __m512 largest = _mm512_max_ps(before, _mm512_mul_ps(most, scale));
    __m512 total = _mm512_setzero_ps();
    for (i64 i = 0; i < count; i += 2) {
        __m512 pair[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (i64 j = 0; j < 2 && i + j < count; j++)
            pair[j] = exp2_rough(
                _mm512_fmsub_ps(_mm512_loadu_ps(state->scores[i + j] + lane), scale, largest));
        _mm512_storeu_si512(state->weights[i / 2] + lane, paired(pair[0], pair[1]));
        total = _mm512_add_ps(total, _mm512_add_ps(pair[0], pair[1]));
    }
    const __m512 shrink = exp2_rough(_mm512_sub_ps(before, largest));
    _mm512_storeu_ps(state->largest + lane, largest);
    _mm512_storeu_ps(state->total + lane,
                     _mm512_fmadd_ps(_mm512_loadu_ps(state->total + lane), shrink, total));
    float factors[16];
    _mm512_storeu_ps(factors, shrink);
    for (int i = 0; i < 16 && lane + i < part->queries; i++)
        for (i64 d = 0; d < part->all->size / 16; d++)
            state->sums[lane + i][d] = _mm512_mul_ps(state->sums[lane + i][d], _mm512_set1_ps(factors[i]));
}

// Adds the weighted values of `count` tokens for queries [query, query + queries).
INLINE void gather(const Part *part, State *state, i64 count, int query, const int queries) {
    const Rows *all = part->all;
    const bf16 *plane = values_of(part);
    for (i64 d = 0; d < all->size; d += 32) {
        __m512 low[AT_ONCE], high[AT_ONCE];
        UNROLL for (int i = 0; i < queries; i++) {
            low[i] = state->sums[query + i][d / 16];
            high[i] = state->sums[query + i][d / 16 + 1];
        }
        for (i64 token = 0; token < count; token += 2) {
            const i64 *places = state->places + token;
            const __m512i a = _mm512_loadu_si512(plane + places[0] + d);
            const __m512i b = _mm512_loadu_si512(plane + places[token + 1 < count] + d);
            const __m512bh left = (__m512bh)_mm512_unpacklo_epi16(a, b);
            const __m512bh right = (__m512bh)_mm512_unpackhi_epi16(a, b);
            UNROLL for (int i = 0; i < queries; i++) {
                const __m512bh weight =
                    (__m512bh)_mm512_set1_epi32(state->weights[token / 2][query + i]);
                low[i] = _mm512_dpbf16_ps(low[i], weight, left);
                high[i] = _mm512_dpbf16_ps(high[i], weight, right);
            }
        }
        UNROLL for (int i = 0; i < queries; i++) {
            state->sums[query + i][d / 16] = low[i];
            state->sums[query + i][d / 16 + 1] = high[i];
        }
    }
}

static void gather_all(const Part *part, State *state, i64 count) {
#define QUERIES(n) \
    case n: gather(part, state, count, query, n); break;
    for (int query = 0; query < part->queries; query += AT_ONCE)
        switch ((int)min64(AT_ONCE, part->queries - query)) {
            QUERIES(1) QUERIES(2) QUERIES(3) QUERIES(4) QUERIES(5) QUERIES(6) QUERIES(7) QUERIES(8)
        }
#undef QUERIES
}

static void gather_tokens(const Part *part, const Part *next) {
    State state;
    begin_part(part, &state);
    for (i64 begin = part->begin; begin < part->end; begin += ROUND) {
        const i64 end = min64(part->end, begin + ROUND);
        score(part, next, &state, begin, end);
        for (int lane = 0; lane < part->queries; lane += 16) weigh(part, &state, lane, end - begin);
        gather_all(part, &state, end - begin);
    }
    end_part(part, &state);
}

void gather_part(const Rows *all, i64 level, Pieces *pieces) {
    const i64 *levels = all->together->levels + level;
    Part part, next;
    int is_part = find_part(all, levels[0], levels[1], take_piece(pieces), &part);
    for (int is_next; is_part; is_part = is_next, part = next) {
        is_next = find_part(all, levels[0], levels[1], take_piece(pieces), &next);
        gather_tokens(&part, is_next ? &next : 0);
    }
}

// Attention on tiles is written for rows by themselves.
int pie_gathers_together(void) { return !pie_has_tiles; }
