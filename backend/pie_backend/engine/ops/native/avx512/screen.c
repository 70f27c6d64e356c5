// The likeliest output of each row without computing all of them in bfloat16. A copy of the weights
// in bytes, half the memory and twice as fast to multiply, tells how large each output may be at most
// and is at least; only those that may be the largest are computed as pie_linear computes them. The
// answer is its answer, to the bit.
//
// With w = s q + r and x = t z + d, q and z integers: x w = s t (z q) + t z r + d w, of which the
// last two are at most |t z| |r| and |d| |w|.
#include "product.h"

enum {
    QUAD = 4,               // numbers that one instruction adds up in a lane
    QUADS = QUAD * COLUMNS, // bytes of a block for so many of k
    MIDDLE = 128,           // weights are bytes without a sign: q + MIDDLE
    MOST_FOUND = 2048,      // of a row and a thread; where there are more, all may as well be computed
    FEW_ROWS = 4,
};

// Rows that are split in two parts, 128 high + low, are known so well that no outlier matters. It
// takes twice the arithmetic, which few rows have to spare.
static const float WORST_OF_ONE_PART = 0.03f;

typedef struct {
    const bf16 *weight;           // [n][k]
    const uint8_t *packed;        // [n / 32][k / 4][32 n][4]
    const float *scales, *errors; // [n]: s, |r|
    const float *lengths;         // [n]: |w|
    i64 n, k;
} Screen;

// What is known of a row of x.
typedef struct {
    float unit;        // t, of the low part if there are two
    float of_errors;   // |t z|
    float of_lengths;  // |d|, and for what rounding adds
    int32_t sums[2];   // of z, part by part
} Known;

// Outputs of a row that may be the largest of those that one thread has seen.
typedef struct {
    float bar;  // what is less at most cannot be the largest
    i64 count;  // -1: there were too many
    int32_t ids[MOST_FOUND + 16];
    float most[MOST_FOUND + 16];
} Found;

enum { MOST_THREADS = 256 };

typedef struct {
    const Screen *screen;
    const bf16 *x;
    i64 *tokens;
    i64 rows;
    Found *found[MOST_THREADS];  // [rows] of each thread
} Choice;

static float square(__m512 x) { return _mm512_reduce_add_ps(_mm512_mul_ps(x, x)); }

static float largest_of(const bf16 *x, i64 k) {
    __m512 most = _mm512_setzero_ps();
    for (i64 i = 0; i < k; i += 16) most = _mm512_max_ps(most, _mm512_abs_ps(load_bf16(x + i)));
    return _mm512_reduce_max_ps(most);
}

// Sums of squares of floats that are added up in any order are off by less.
static float length_of(float squares) { return sqrtf(squares) * 1.0001f; }

void pie_screen_pack(const bf16 *weight, uint8_t *packed, float *scales, float *errors,
                     float *lengths, i64 n, i64 k) {
#pragma omp parallel for num_threads(pie_threads) schedule(static)
    for (i64 row = 0; row < up_to(n, COLUMNS); row++) {
        const bf16 *w = weight + row * k;
        uint8_t *out = packed + row / COLUMNS * COLUMNS * k + row % COLUMNS * QUAD;
        const float scale = row < n ? largest_of(w, k) / 127 : 0;
        const __m512 inverse = _mm512_set1_ps(scale > 0 ? 1 / scale : 0);
        float error = 0, length = 0;
        for (i64 i = 0; i < k; i += 16) {
            const __m512 value = row < n ? load_bf16(w + i) : _mm512_setzero_ps();
            const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(value, inverse));
            const __m512 rest =
                _mm512_fnmadd_ps(_mm512_cvtepi32_ps(q), _mm512_set1_ps(scale), value);
            error += square(rest);
            length += square(value);
            uint8_t bytes[16];
            const __m512i unsigned_q = _mm512_add_epi32(q, _mm512_set1_epi32(MIDDLE));
            _mm_storeu_si128((__m128i *)bytes, _mm512_cvtepi32_epi8(unsigned_q));
            for (i64 j = 0; j < 16; j += QUAD) memcpy(out + (i + j) / QUAD * QUADS, bytes + j, QUAD);
        }
        if (row >= n) continue;
        scales[row] = scale;
        errors[row] = length_of(error);
        lengths[row] = length_of(length);
    }
}

static __m512i quantised(const bf16 *x, float inverse) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(load_bf16(x), _mm512_set1_ps(inverse)));
}

static float unit_of(const bf16 *x, i64 k, int parts) {
    return largest_of(x, k) / (parts == 1 ? 127 : 127 * 128);
}

// Without its sums.
static Known look_at(const bf16 *x, i64 k, int parts) {
    const float unit = unit_of(x, k, parts), inverse = unit > 0 ? 1 / unit : 0;
    float all = 0, kept = 0, lost = 0;
    for (i64 i = 0; i < k; i += 16) {
        const __m512 value = load_bf16(x + i);
        const __m512 near =
            _mm512_mul_ps(_mm512_cvtepi32_ps(quantised(x + i, inverse)), _mm512_set1_ps(unit));
        all += square(value);
        kept += square(near);
        lost += square(_mm512_sub_ps(value, near));
    }
    // Either way of adding up k products in float32 is off by so many units of their lengths.
    const float rounding = (4 * k + 64) * 0x1p-24f;
    return (Known){unit, length_of(kept), length_of(lost) + rounding * length_of(all), {0, 0}};
}

// Puts each part of a row where the product reads it, as one of the virtual rows.
static void split(const bf16 *x, i64 k, int parts, Known *known, int8_t *to, i64 row) {
    const float inverse = known->unit > 0 ? 1 / known->unit : 0;
    __m512i sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (i64 i = 0; i < k; i += 16) {
        __m512i part[2] = {quantised(x + i, inverse)};
        if (parts == 2) {
            const __m512i high =
                _mm512_srai_epi32(_mm512_add_epi32(part[0], _mm512_set1_epi32(64)), 7);
            part[1] = _mm512_sub_epi32(part[0], _mm512_slli_epi32(high, 7));
            part[0] = high;
        }
        for (int p = 0; p < parts; p++) {
            const i64 number = row * parts + p;
            int8_t *at = to + number / MOST_ROWS * MOST_ROWS * k + number % MOST_ROWS * QUAD;
            int8_t bytes[16];
            _mm_storeu_si128((__m128i *)bytes, _mm512_cvtepi32_epi8(part[p]));
            for (i64 j = 0; j < 16; j += QUAD)
                memcpy(at + (i + j) * MOST_ROWS, bytes + j, QUAD);
            sums[p] = _mm512_add_epi32(sums[p], part[p]);
        }
    }
    for (int p = 0; p < parts; p++) known->sums[p] = _mm512_reduce_add_epi32(sums[p]);
}

// z [k / 4][MOST_ROWS][4] times a block; each quad of k asks for `lines` of what is needed next.
INLINE void multiply_bytes(const int rows, const int8_t *z, const uint8_t *w, i64 quads,
                           const uint8_t *next, i64 lines, int32_t (*sums)[COLUMNS]) {
    __m512i left[MOST_ROWS], right[MOST_ROWS];
    UNROLL for (int row = 0; row < rows; row++) left[row] = right[row] = _mm512_setzero_si512();
    for (; quads; quads--, w += QUADS, z += MOST_ROWS * QUAD) {
        for (i64 i = 0; i < lines; i++, next += 64) _mm_prefetch((const char *)next, _MM_HINT_T1);
        const __m512i a = _mm512_loadu_si512(w), b = _mm512_loadu_si512(w + 64);
        UNROLL for (int row = 0; row < rows; row++) {
            int32_t quad;
            memcpy(&quad, z + row * QUAD, sizeof quad);
            const __m512i all = _mm512_set1_epi32(quad);
            left[row] = _mm512_dpbusd_epi32(left[row], a, all);
            right[row] = _mm512_dpbusd_epi32(right[row], b, all);
        }
    }
    UNROLL for (int row = 0; row < rows; row++) {
        _mm512_storeu_si512(sums[row], left[row]);
        _mm512_storeu_si512(sums[row] + 16, right[row]);
    }
}

static void multiply_block(const int8_t *z, i64 rows, const uint8_t *w, i64 k, const uint8_t *next,
                           int32_t (*sums)[COLUMNS]) {
    const i64 groups = up_to(rows, MOST_ROWS) / MOST_ROWS;
    for (i64 group = 0; group < groups; group++) {
        // Two lines for each quad, by the first groups.
        const i64 lines = !next || group > 1 ? 0 : groups > 1 ? 1 : 2;
        const uint8_t *from = next + group * (k / QUAD) * 64;
#define ROWS(n) \
    case n: multiply_bytes(n, z + group * MOST_ROWS * k, w, k / QUAD, from, lines, \
                           sums + group * MOST_ROWS); break;
        switch (min64(MOST_ROWS, rows - group * MOST_ROWS)) {
            ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6)
            ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12)
        }
#undef ROWS
    }
}

// Outputs are compared as they are rounded to bfloat16: what is less by a unit in the last place may
// come to the same.
static float bar_of(float least) { return least - fabsf(least) * 0x1p-7f - 1e-37f; }

// Forgets what has turned out not to be the largest.
static void sift(Found *found, float bar) {
    i64 kept = 0;
    for (i64 i = 0; i < found->count; i++) {
        if (!(found->most[i] >= bar)) continue;
        found->ids[kept] = found->ids[i];
        found->most[kept++] = found->most[i];
    }
    found->count = kept;
}

static void add(Found *found, __mmask16 may, i64 column, __m512 near, __m512 off) {
    if (found->count < 0) return;
    const float bar =
        bar_of(_mm512_mask_reduce_max_ps(may, _mm512_sub_ps(near, off)));
    if (bar > found->bar) found->bar = bar;
    const __m512i ids =
        _mm512_add_epi32(_mm512_set1_epi32((int32_t)column),
                         _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    _mm512_storeu_si512(found->ids + found->count, _mm512_maskz_compress_epi32(may, ids));
    _mm512_storeu_ps(found->most + found->count,
                     _mm512_maskz_compress_ps(may, _mm512_add_ps(near, off)));
    found->count += __builtin_popcount(may);
    if (found->count <= MOST_FOUND) return;
    sift(found, found->bar);
    if (found->count > MOST_FOUND / 2) found->count = -1;
}

// Sixteen outputs of all rows.
static void look_through(const Choice *choice, const Known *known, Found *found,
                         int parts, int32_t (*sums)[COLUMNS], i64 column, i64 within) {
    const Screen *screen = choice->screen;
    const __mmask16 mask = first(screen->n - column);
    const __m512 scales = _mm512_maskz_loadu_ps(mask, screen->scales + column);
    const __m512 errors = _mm512_maskz_loadu_ps(mask, screen->errors + column);
    const __m512 lengths = _mm512_maskz_loadu_ps(mask, screen->lengths + column);
    for (i64 row = 0; row < choice->rows; row++) {
        __m512 sum = _mm512_setzero_ps();
        for (int p = 0; p < parts; p++) {
            const __m512i part = _mm512_sub_epi32(_mm512_loadu_si512(sums[row * parts + p] + within),
                                                  _mm512_set1_epi32(MIDDLE * known[row].sums[p]));
            sum = _mm512_fmadd_ps(sum, _mm512_set1_ps(128), _mm512_cvtepi32_ps(part));
        }
        const __m512 near = _mm512_mul_ps(sum, _mm512_mul_ps(scales, _mm512_set1_ps(known[row].unit)));
        const __m512 off =
            _mm512_fmadd_ps(lengths, _mm512_set1_ps(known[row].of_lengths),
                            _mm512_mul_ps(errors, _mm512_set1_ps(known[row].of_errors)));
        const __mmask16 may = _mm512_mask_cmp_ps_mask(
            mask, _mm512_add_ps(near, off), _mm512_set1_ps(found[row].bar), _CMP_GE_OQ);
        if (may) add(found + row, may, column, near, off);
    }
}

static const uint8_t *block_at(const Screen *screen, i64 number) {
    return screen->packed + number * COLUMNS * screen->k;
}

// How many parts all rows are split in.
static int look_at_all(const bf16 *x, i64 rows, i64 k, Known *known) {
    int parts = rows <= FEW_ROWS ? 2 : 1;
    for (i64 row = 0; row < rows; row++) {
        known[row] = look_at(x + row * k, k, parts);
        if (parts == 2 || known[row].of_lengths <= WORST_OF_ONE_PART * known[row].of_errors) continue;
        parts = 2;
        row = -1;
    }
    return parts;
}

static void screen_part(Choice *choice, Pieces *pieces) {
    const Screen *screen = choice->screen;
    const i64 k = screen->k, rows = choice->rows;
    const i64 padded = up_to(2 * rows, MOST_ROWS), blocks = up_to(screen->n, COLUMNS) / COLUMNS;
    int32_t(*sums)[COLUMNS] =
        pie_own_memory(padded * (k + sizeof *sums) + rows * (sizeof(Known) + sizeof(Found)));
    int8_t *z = (int8_t *)(sums + padded);
    Found *found = (Found *)(z + padded * k);
    Known *known = (Known *)(found + rows);
    choice->found[omp_get_thread_num()] = found;
    const int parts = look_at_all(choice->x, rows, k, known);
    for (i64 row = 0; row < rows; row++) {
        found[row].bar = -INFINITY;
        found[row].count = 0;
        split(choice->x + row * k, k, parts, known + row, z, row);
    }
    for (i64 piece = take_piece(pieces), following; piece < blocks; piece = following) {
        following = take_piece(pieces);
        multiply_block(z, rows * parts, block_at(screen, piece), k,
                       following < blocks ? block_at(screen, following) : 0, sums);
        for (i64 within = 0; within < min64(COLUMNS, screen->n - piece * COLUMNS); within += 16)
            look_through(choice, known, found, parts, sums, piece * COLUMNS + within, within);
    }
}

// Sixteen rows of sixteen pairs each -> pair by pair.
static void transpose(__m512i *x) {
    __m512i y[16];
    UNROLL for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) {
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        y[i] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0x88);
        y[i + 4] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0xdd);
        y[i + 8] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0x88);
        y[i + 12] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0xdd);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        x[i] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88);
        x[i + 8] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd);
        x[i + 4] = _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0x88);
        x[i + 12] = _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0xdd);
    }
}

// Up to sixteen outputs as pie_linear has them: the same products, added up in the same order.
static __m512 outputs_of(const bf16 *x, const Screen *screen, const int32_t *ids, i64 count) {
    const bf16 *rows[16];
    for (i64 i = 0; i < 16; i++) rows[i] = screen->weight + ids[min64(i, count - 1)] * screen->k;
    __m512 sum = _mm512_setzero_ps();
    for (i64 k = 0; k < screen->k; k += 32) {
        __m512i pairs[16];
        UNROLL for (int i = 0; i < 16; i++) pairs[i] = _mm512_loadu_si512(rows[i] + k);
        transpose(pairs);
        UNROLL for (int i = 0; i < 16; i++) {
            int32_t pair;
            memcpy(&pair, x + k + 2 * i, sizeof pair);
            sum = _mm512_dpbf16_ps(sum, (__m512bh)pairs[i], (__m512bh)_mm512_set1_epi32(pair));
        }
    }
    bf16 rounded[16];
    store_bf16(rounded, sum);
    return load_bf16(rounded);
}

typedef struct {
    float output;
    i64 token;
} Best;

// Of equals the lowest, in whatever order they come.
static Best best_of(const bf16 *x, const Screen *screen, const Found *found, Best best) {
    for (i64 i = 0; i < found->count; i += 16) {
        const i64 count = min64(16, found->count - i);
        float outputs[16];
        _mm512_storeu_ps(outputs, outputs_of(x, screen, found->ids + i, count));
        for (i64 j = 0; j < count; j++) {
            const Best one = {outputs[j], found->ids[i + j]};
            if (one.output > best.output || (one.output == best.output && one.token < best.token))
                best = one;
        }
    }
    return best;
}

// -1 where it cannot be told.
static i64 decide(const Choice *choice, i64 row) {
    float bar = -INFINITY;
    for (int thread = 0; choice->found[thread]; thread++) {
        const Found *found = choice->found[thread] + row;
        if (found->count < 0) return -1;
        if (found->bar > bar) bar = found->bar;
    }
    Best best = {-INFINITY, -1};
    for (int thread = 0; choice->found[thread]; thread++) {
        Found *found = choice->found[thread] + row;
        sift(found, bar);
        best = best_of(choice->x + row * choice->screen->k, choice->screen, found, best);
    }
    return best.token;
}

// x [rows][k] -> tokens [rows]: of x W^T in bfloat16 the first place of the largest; -1 where this
// way cannot tell.
void pie_screen(const bf16 *x, const bf16 *weight, const uint8_t *packed, const float *scales,
                const float *errors, const float *lengths, i64 *tokens, i64 rows, i64 n, i64 k) {
    const Screen screen = {weight, packed, scales, errors, lengths, n, k};
    Choice choice = {&screen, x, tokens, rows, {0}};
    Pieces pieces[2] = {0};
#pragma omp parallel num_threads((int)min64(pie_threads, MOST_THREADS - 1))
    {
        screen_part(&choice, pieces);
#pragma omp barrier
        for (i64 row; (row = take_piece(pieces + 1)) < rows;) tokens[row] = decide(&choice, row);
    }
}

int pie_screens(void) { return !pie_has_tiles; }
