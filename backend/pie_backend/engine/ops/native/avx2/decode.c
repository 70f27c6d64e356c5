// Attention of rows of one token over pages, where they lie: nothing is gathered or copied.
#include "common.h"

// A round's scores and values stay in cache. More queries of one key head are two tasks.
enum { ROUND = 256 /* tokens */, QUERIES = 4, TOKENS = 4 };

typedef struct {
    i64 places[ROUND];  // of each token of the round, in numbers from its head's first
    Pair q[QUERIES][MAX_SIZE / 16], sums[QUERIES][MAX_SIZE / 16];
    float largest[QUERIES], total[QUERIES];
    float weights[QUERIES][ROUND];
} State;

static void begin_task(const Task *task, State *state) {
    const Pair zero = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int i = 0; i < task->queries; i++) {
        state->largest[i] = -INFINITY;
        state->total[i] = 0;
        for (i64 d = 0; d < task->size / 16; d++) {
            state->q[i][d] = load_pair(task->q + i * task->size + d * 16);
            state->sums[i][d] = zero;
        }
    }
}

// Also asks for the values, which the scores have to come before.
static void locate(const Task *task, State *state, i64 begin, i64 end) {
    for (i64 token = begin; token < end;) {
        const i64 page = token / task->page_size, stop = min64(end, (page + 1) * task->page_size);
        i64 place = (task->pages[page] * task->page_size + token % task->page_size) * task->size;
        for (; token < stop; token++, place += task->size) {
            state->places[token - begin] = place;
            for (i64 d = 0; d < task->size; d += 32)
                _mm_prefetch((const char *)(task->values + place + d), _MM_HINT_T1);
        }
    }
}

// Scores of the four tokens from `token` on for one query or two.
INLINE void score_some(const Task *task, State *state, i64 token, i64 begin, i64 end, int query,
                       const int queries) {
    __m256 sums[2][TOKENS];
    const bf16 *keys[TOKENS];
    UNROLL for (int i = 0; i < TOKENS; i++) {
        keys[i] = task->keys + state->places[min64(token + i, end - 1) - begin];
        UNROLL for (int j = 0; j < queries; j++) sums[j][i] = _mm256_setzero_ps();
    }
    for (i64 d = 0; d < task->size / 16; d++) {
        UNROLL for (int i = 0; i < TOKENS; i++) {
            const Pair key = load_pair(keys[i] + d * 16);
            UNROLL for (int j = 0; j < queries; j++) {
                const Pair q = state->q[query + j][d];
                sums[j][i] = _mm256_fmadd_ps(key.even, q.even, sums[j][i]);
                sums[j][i] = _mm256_fmadd_ps(key.odd, q.odd, sums[j][i]);
            }
        }
    }
    UNROLL for (int j = 0; j < queries; j++) {
        const __m256 a = _mm256_hadd_ps(sums[j][0], sums[j][1]);
        const __m256 b = _mm256_hadd_ps(sums[j][2], sums[j][3]), all = _mm256_hadd_ps(a, b);
        const __m128 four = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
        _mm_storeu_ps(state->weights[query + j] + token - begin, _mm_mul_ps(four, _mm_set1_ps(task->scale)));
    }
}

// Scores of tokens [begin, end) into state->weights; what lies beyond the end is -inf.
static void score(const Task *task, State *state, i64 begin, i64 end) {
    for (i64 token = begin; token < end; token += TOKENS) {
        int query = 0;
        for (; query + 2 <= task->queries; query += 2)
            score_some(task, state, token, begin, end, query, 2);
        if (query < task->queries) score_some(task, state, token, begin, end, query, 1);
    }
    for (int i = 0; i < task->queries; i++) {
        for (i64 token = begin; task->bias && token < end; token++)
            state->weights[i][token - begin] += task->bias[token];
        for (i64 at = end - begin; at < up_to(end - begin, 8); at++)
            state->weights[i][at] = -INFINITY;
    }
}

// Scores to weights against the largest so far, to which what was summed before is brought down.
static void weigh(const Task *task, State *state, i64 count) {
    for (int i = 0; i < task->queries; i++) {
        __m256 most = _mm256_set1_ps(state->largest[i]);
        for (i64 j = 0; j < count; j += 8)
            most = _mm256_max_ps(most, _mm256_loadu_ps(state->weights[i] + j));
        const float largest = most_of(most);
        if (largest == -INFINITY) {  // nothing seen yet
            memset(state->weights[i], 0, count * sizeof(float));
            continue;
        }
        const float shrink = expf(state->largest[i] - largest);
        __m256 total = _mm256_setzero_ps();
        for (i64 j = 0; j < count; j += 8) {
            const __m256 apart = _mm256_sub_ps(_mm256_loadu_ps(state->weights[i] + j),
                                               _mm256_set1_ps(largest));
            const __m256 weight = exp_ps(apart);
            _mm256_storeu_ps(state->weights[i] + j, weight);
            total = _mm256_add_ps(total, weight);
        }
        state->total[i] = state->total[i] * shrink + sum_of(total);
        state->largest[i] = largest;
        const __m256 factor = _mm256_set1_ps(shrink);
        for (i64 d = 0; d < task->size / 16; d++) {
            state->sums[i][d].even = _mm256_mul_ps(state->sums[i][d].even, factor);
            state->sums[i][d].odd = _mm256_mul_ps(state->sums[i][d].odd, factor);
        }
    }
}

// Adds the weighted values of `count` tokens for all queries.
INLINE void gather(const Task *task, State *state, i64 count, const int queries) {
    for (i64 d = 0; d < task->size / 16; d++) {
        Pair sums[QUERIES];
        UNROLL for (int i = 0; i < queries; i++) sums[i] = state->sums[i][d];
        for (i64 token = 0; token < count; token++) {
            const Pair value = load_pair(task->values + state->places[token] + d * 16);
            UNROLL for (int i = 0; i < queries; i++) {
                const __m256 weight = _mm256_broadcast_ss(&state->weights[i][token]);
                sums[i].even = _mm256_fmadd_ps(weight, value.even, sums[i].even);
                sums[i].odd = _mm256_fmadd_ps(weight, value.odd, sums[i].odd);
            }
        }
        UNROLL for (int i = 0; i < queries; i++) state->sums[i][d] = sums[i];
    }
}

static void gather_all(const Task *task, State *state, i64 count) {
    switch (task->queries) {
    case 1: gather(task, state, count, 1); break;
    case 2: gather(task, state, count, 2); break;
    case 3: gather(task, state, count, 3); break;
    case 4: gather(task, state, count, 4); break;
    }
}

static void attend(const Task *task) {
    State state;
    begin_task(task, &state);
    for (i64 begin = 0; begin < task->length; begin += ROUND) {
        const i64 end = min64(task->length, begin + ROUND);
        locate(task, &state, begin, end);
        score(task, &state, begin, end);
        weigh(task, &state, up_to(end - begin, 8));
        gather_all(task, &state, end - begin);
    }
    for (int i = 0; i < task->queries; i++) {
        const __m256 share = _mm256_set1_ps(1.0f / state.total[i]);
        for (i64 d = 0; d < task->size / 16; d++)
            store_pair(task->out + i * task->size + d * 16,
                       (Pair){_mm256_mul_ps(state.sums[i][d].even, share),
                              _mm256_mul_ps(state.sums[i][d].odd, share)});
    }
}

void attend_part(const Rows *all, Pieces *pieces) {
    (void)pieces;
    const i64 tasks = all->rows * all->kv_heads * (up_to(all->queries, QUERIES) / QUERIES);
    // Turn by turn: neighbours are about as long.
    for (i64 number = omp_get_thread_num(); number < tasks; number += omp_get_num_threads()) {
        const Task task = task_of(all, number, QUERIES);
        attend(&task);
    }
}

void gather_part(const Rows *all, i64 level, Pieces *pieces) { (void)all, (void)level, (void)pieces; }

int pie_gathers_together(void) { return 0; }
