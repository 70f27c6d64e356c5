// y = x W^T for weights laid out once, so that 32 outputs are one stream of memory: for tiles
// [N/32][K/32][2][16 pairs of k][16 n][2], a kilobyte of it is one tile of AMX; else
// [N/32][K/2 pairs][32 n][2], since memory is read fastest in its order.
#include "product.h"

enum { BLOCK = COLUMNS, PITCH = 2 * BLOCK, STEP = 32 * BLOCK /* of weights, for 32 of k */ };

// Where in a block's step of 32 the k-th weight of a column is.
INLINE i64 place_of(i64 column, i64 k) {
    if (pie_has_tiles) return column / 16 * TILE + k / 2 * 32 + column % 16 * 2 + k % 2;
    return k / 2 * PITCH + column * 2 + k % 2;
}

void pie_pack(const bf16 *weight, bf16 *packed, i64 n, i64 k) {
#pragma omp parallel for num_threads(pie_threads) schedule(static)
    for (i64 row = 0; row < up_to(n, BLOCK); row++) {
        bf16 *out = packed + row / BLOCK * BLOCK * k;
        for (i64 i = 0; i < k; i++)
            out[i / 32 * STEP + place_of(row % BLOCK, i % 32)] = row < n ? weight[row * k + i] : 0;
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
        int8_t *out = packed + row / BLOCK * BLOCK * k;
        for (i64 i = 0; i < k; i++) {
            const uint32_t bits = row < n ? (uint32_t)weight[row * k + i] << 16 : 0;
            float value;
            memcpy(&value, &bits, sizeof value);
            out[i / 32 * STEP + place_of(row % BLOCK, i % 32)] =
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

INLINE __m512 follow(const Job *job, int epilogue, __mmask16 mask, i64 at, __m512 sum) {
    if (epilogue == SILU) return silu_ps(sum);
    if (epilogue == PLAIN) return sum;
    const __m512 other = load_bf16_masked(mask, job->other + at);
    return epilogue == TIMES ? _mm512_mul_ps(sum, other) : _mm512_add_ps(sum, other);
}

typedef float Sums[BLOCK][BLOCK];

INLINE void finish_as(const int epilogue, const Job *job, i64 row, int count, i64 block,
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
        const __m512 a = _mm512_fmadd_ps(_mm512_loadu_ps(sums[i]), scales[0], biases[0]);
        const __m512 b = _mm512_fmadd_ps(_mm512_loadu_ps(sums[i] + 16), scales[1], biases[1]);
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

static Panel panel_of(const bf16 *weight) {
    return (Panel){weight, weight + (pie_has_tiles ? TILE : BLOCK), STEP, 0, 0};
}

// The weights of one block of outputs: ready to be read, or int8 that is widened on the way.
typedef struct {
    Panel ready;
    const int8_t *narrow;  // null where they are ready
    bf16 *wide;
} Weight;

// Of int8 weights that are needed once: widened a little ahead of their use, within the first-level
// cache.
static void multiply_narrow(Left left, const Weight *weight, i64 k, i64 apart, Sums sums) {
    enum { PART = 128 };
    i64 at = 0, length = min64(PART, k);
    widen(weight->narrow, weight->wide, length * BLOCK);
    for (int turn = 0; at < k; turn ^= 1) {
        const bf16 *ready = weight->wide + turn * PART * BLOCK;
        const i64 next = at + length, next_length = min64(PART, k - next);
        if (next_length > 0)
            widen(weight->narrow + next * BLOCK, weight->wide + (turn ^ 1) * PART * BLOCK,
                  next_length * BLOCK);
        add_product(left, INTERLEAVED, panel_of(ready), PITCH, length / 32, *sums, BLOCK);
        left.x += length * apart;
        at = next;
        length = next_length;
    }
}

static void one_block(const Job *job, i64 row, Left left, i64 block, const Weight *weight) {
    Sums sums;
    begin_sums(left.rows, *sums, BLOCK, 1);
    prefetch_results(job, row, left.rows, block);
    if (weight->narrow)
        multiply_narrow(left, weight, job->k, pie_has_tiles ? 1 : MOST_ROWS, sums);
    else
        add_product(left, INTERLEAVED, weight->ready, PITCH, job->k / 32, *sums, BLOCK);
    end_sums(left.rows, *sums, BLOCK);
    finish_block(job, row, left.rows, block, sums);
}

// So many rows of x that they stay in a core's second-level cache while the weights pass by.
static i64 rows_at_a_time(i64 k) {
    const i64 once = rows_at_once();
    return max64(once, (1 << 19) / (k * 2) / once * once);
}

// Rows [from, end) in parts, each of which is computed at one time.
typedef struct {
    i64 from, end, parts;
    const bf16 *x;  // interleaved part by part, unless tiles read rows as they are
} Chunk;

static i64 begin_of(const Chunk *chunk, i64 part) {
    const i64 rows = chunk->end - chunk->from;
    return chunk->from +
           (pie_has_tiles ? min64(rows, part * rows_at_once()) : part_begin(rows, chunk->parts, part));
}

static Left left_of(const Job *job, const Chunk *chunk, i64 part) {
    const i64 row = begin_of(chunk, part);
    const int rows = (int)(begin_of(chunk, part + 1) - row);
    if (pie_has_tiles) return (Left){chunk->x + (row - chunk->from) * job->k, job->k, rows};
    return (Left){chunk->x + part * MOST_ROWS * job->k, 0, rows};
}

// Rows [row, row + count), normalised into `own` where the job wants it.
static const bf16 *rows_of(const Job *job, i64 row, i64 count, bf16 *own) {
    const bf16 *x = job->x + row * job->k;
    if (!job->norm) return x;
    for (i64 i = 0; i < count; i++)
        norm_row(x + i * job->k, job->norm, own + i * job->k, job->k, job->eps);
    return own;
}

// `own`: as many rows as there are, rounded up to whole parts, and one part more.
static Chunk chunk_of(const Job *job, i64 from, i64 end, bf16 *own) {
    Chunk chunk = {from, end, up_to(end - from, rows_at_once()) / rows_at_once(), own};
    if (pie_has_tiles) {
        chunk.x = rows_of(job, from, end - from, own);
        return chunk;
    }
    bf16 *last = own + chunk.parts * MOST_ROWS * job->k;
    for (i64 part = 0; part < chunk.parts; part++) {
        const i64 row = begin_of(&chunk, part), count = begin_of(&chunk, part + 1) - row;
        interleave(rows_of(job, row, count, last), job->k, (int)count, job->k,
                   own + part * MOST_ROWS * job->k);
    }
    return chunk;
}

// A block of weights that is needed next, in lines of the cache; none where it is not known.
typedef struct {
    const bf16 *begin;
    i64 lines;
} Block;

static Block block_of(const Job *job, i64 number) {
    const i64 size = job->scales ? 1 : 2;
    return (Block){(const bf16 *)((const char *)job->weight + number * BLOCK * job->k * size),
                   BLOCK * job->k * size / 64};
}

// Memory is read while there is something to compute. Tiles are fast, and what they need is asked for
// a little ahead, by the first part. Without them the parts share in asking for the next block.
static void ask_for(Block next, const Job *job, Panel *panel, i64 parts, i64 part) {
    enum { LINES = STEP * 2 / 64 };
    if (pie_has_tiles) {
        panel->next = panel->left + AHEAD / 2;
        panel->lines = part ? 0 : LINES;
    } else {
        const i64 turns = job->k / 32 * parts;
        panel->lines = up_to(next.lines, turns) / turns;
        panel->next = next.begin + part * (job->k / 32) * panel->lines * 32;
    }
}

static void all_rows(const Job *job, const Chunk *chunk, i64 block, Block next, bf16 *wide) {
    const i64 begin = block * job->k * BLOCK;
    Weight weight = {panel_of((const bf16 *)job->weight + begin), 0, wide};
    if (job->scales) weight.narrow = (const int8_t *)job->weight + begin;
    if (job->scales && chunk->parts > 1) {
        widen(weight.narrow, wide, job->k * BLOCK);
        weight = (Weight){panel_of(wide), 0, wide};
    }
    for (i64 part = 0; part < chunk->parts; part++) {
        const Left left = left_of(job, chunk, part);
        const int ragged = job->rows > 32 && left.rows < 32;
        if (!job->scales) ask_for(next, job, &weight.ready, chunk->parts, part);
        if (ragged) configure_tiles(left.rows);
        one_block(job, begin_of(chunk, part), left, block, &weight);
        if (ragged) configure_tiles(32);
    }
}

i64 linear_part(const Job *job, Pieces *pieces, i64 first, Next next) {
    const i64 blocks = up_to(job->n, BLOCK) / BLOCK, step = rows_at_a_time(job->k);
    const i64 count = blocks * (up_to(job->rows, step) / step);
    const i64 padded = up_to(min64(job->rows, step), MOST_ROWS) + 2 * MOST_ROWS;
    bf16 *own = pie_own_memory(padded * job->k * sizeof(bf16));
    bf16 *wide = job->wide + omp_get_thread_num() * max64(job->k, 256) * BLOCK;
    configure_tiles((int)min64(32, job->rows));
    Chunk chunk = {0};
    i64 later = -1;
    for (i64 piece = first, following; piece < count; piece = following) {
        following = take_piece(pieces);
        const i64 from = piece / blocks * step, block = piece % blocks;
        if (from >= chunk.end) chunk = chunk_of(job, from, min64(job->rows, from + step), own);
        Block needed = {0};
        if (following < count) {
            needed = block_of(job, following % blocks);
        } else if (next.job) {
            later = take_piece(next.pieces);
            needed = block_of(next.job, later % (up_to(next.job->n, BLOCK) / BLOCK));
        }
        all_rows(job, &chunk, block, job->then ? block_of(job->then, block) : needed, wide);
        if (job->then) all_rows(job->then, &chunk, block, needed, wide);
    }
    release_tiles();
    return later < 0 && next.job ? take_piece(next.pieces) : later;
}
