// Up to 32 rows times 32 columns, which both products of weights and causal attention are made of:
// on the tiles of AMX where they are, else in registers.
#pragma once

#include "common.h"

enum { TILE = 512 /* bf16 */, COLUMNS = 32, AHEAD = 4096 /* bytes */ };

// The left factor. On tiles, rows `stride` numbers apart; else a pair of numbers of row r is at
// r * row_stride, the next pair of it at pair_stride, both known when this is compiled.
typedef struct {
    const bf16 *x;
    i64 stride;
    int rows;
} Left;

// The right factor: its left and right sixteen columns as tiles [16 pairs of k][16 columns][2], one
// after another `step` numbers apart. Meanwhile `lines` of what is needed next are asked for with
// each tile.
typedef struct {
    const bf16 *left, *right;
    i64 step;
    const bf16 *next;
    i64 lines;
} Panel;

INLINE void fetch_next(Panel *panel, const int hint) {
    for (i64 i = 0; i < panel->lines; i++) _mm_prefetch((const char *)panel->next + 64 * i, hint);
    panel->next += 32 * panel->lines;
}

// Rows of a group: two registers of sums for each, of 32 registers.
enum { MOST_ROWS = 12 };

// Strides of rows that lie side by side, a pair of each in turn: [k / 2][MOST_ROWS][2].
#define INTERLEAVED 2, 2 * MOST_ROWS

static inline void interleave(const bf16 *from, i64 stride, int rows, i64 k, bf16 *to) {
    for (int row = 0; row < rows; row += 4) {
        const bf16 *four[4];
        for (int i = 0; i < 4; i++) four[i] = from + min64(row + i, rows - 1) * stride;
        for (i64 i = 0; i < k; i += 8) {
            __m128 a = _mm_loadu_ps((const float *)(four[0] + i));
            __m128 b = _mm_loadu_ps((const float *)(four[1] + i));
            __m128 c = _mm_loadu_ps((const float *)(four[2] + i));
            __m128 d = _mm_loadu_ps((const float *)(four[3] + i));
            _MM_TRANSPOSE4_PS(a, b, c, d);
            float *at = (float *)(to + (i * MOST_ROWS + row * 2));
            _mm_storeu_ps(at, a);
            _mm_storeu_ps(at + MOST_ROWS, b);
            _mm_storeu_ps(at + 2 * MOST_ROWS, c);
            _mm_storeu_ps(at + 3 * MOST_ROWS, d);
        }
    }
}

// sums [rows][width] += x panel, whose pairs are `pitch` numbers apart. A pair of x is at row *
// row_stride + pair * pair_stride.
INLINE void multiply_rows(const int rows, const bf16 *x, const i64 row_stride,
                          const i64 pair_stride, Panel panel, const i64 pitch, i64 steps,
                          float *sums, const i64 width) {
    __m512 left[MOST_ROWS], right[MOST_ROWS];
    UNROLL for (int row = 0; row < rows; row++) {
        left[row] = _mm512_loadu_ps(sums + row * width);
        right[row] = _mm512_loadu_ps(sums + row * width + 16);
    }
    for (; steps; steps--, panel.left += panel.step, panel.right += panel.step) {
        fetch_next(&panel, _MM_HINT_T1);
        const bf16 *a = panel.left, *b = panel.right;
        for (int pair = 0; pair < 16; pair++, x += pair_stride, a += pitch, b += pitch) {
            const __m512bh w = (__m512bh)_mm512_loadu_si512(a);
            const __m512bh v = (__m512bh)_mm512_loadu_si512(b);
            UNROLL for (int row = 0; row < rows; row++) {
                int32_t both;
                memcpy(&both, x + row * row_stride, sizeof both);
                const __m512bh factor = (__m512bh)_mm512_set1_epi32(both);
                left[row] = _mm512_dpbf16_ps(left[row], factor, w);
                right[row] = _mm512_dpbf16_ps(right[row], factor, v);
            }
        }
    }
    UNROLL for (int row = 0; row < rows; row++) {
        _mm512_storeu_ps(sums + row * width, left[row]);
        _mm512_storeu_ps(sums + row * width + 16, right[row]);
    }
}

INLINE void multiply_group(int rows, const bf16 *x, const i64 row_stride, const i64 pair_stride,
                           Panel panel, const i64 pitch, i64 steps, float *sums, const i64 width) {
#define ROWS(n) \
    case n: multiply_rows(n, x, row_stride, pair_stride, panel, pitch, steps, sums, width); break;
    switch (rows) {
        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6)
        ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12)
    }
#undef ROWS
}

#if HAS_AMX
INLINE void multiply_on_tiles(Left left, Panel panel, i64 steps) {
    const bf16 *x = left.x;
    for (; steps; steps--, x += 32, panel.left += panel.step, panel.right += panel.step) {
        fetch_next(&panel, _MM_HINT_T0);
        tile_load(4, x, left.stride * 2);
        tile_load(6, panel.left, 64);
        _tile_dpbf16ps(0, 4, 6);
        tile_load(7, panel.right, 64);
        _tile_dpbf16ps(1, 4, 7);
        if (left.rows > 16) {
            tile_load(5, x + 16 * left.stride, left.stride * 2);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
}
#endif

// What a sum is made of: begun once, added to, ended once. On tiles only the last writes `sums`,
// which are [rows][width].
INLINE void begin_sums(int rows, float *sums, const i64 width, const int zero) {
#if HAS_AMX
    if (pie_has_tiles) {
        if (zero) {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            return;
        }
        tile_load(0, sums, width * 4);
        tile_load(1, sums + 16, width * 4);
        if (rows <= 16) return;
        tile_load(2, sums + 16 * width, width * 4);
        tile_load(3, sums + 16 * width + 16, width * 4);
        return;
    }
#endif
    for (int row = 0; zero && row < rows; row++) memset(sums + row * width, 0, COLUMNS * 4);
}

// `steps` times 32 numbers of the inner dimension. `pitch`: from one pair of the panel to the next,
// where there are no tiles.
INLINE void add_product(Left left, const i64 row_stride, const i64 pair_stride, Panel panel,
                        const i64 pitch, i64 steps, float *sums, const i64 width) {
#if HAS_AMX
    if (pie_has_tiles) return multiply_on_tiles(left, panel, steps);
#endif
    multiply_group(left.rows, left.x, row_stride, pair_stride, panel, pitch, steps, sums, width);
}

INLINE void end_sums(int rows, float *sums, const i64 width) {
#if HAS_AMX
    if (!pie_has_tiles) return;
    _tile_stored(0, sums, width * 4);
    _tile_stored(1, sums + 16, width * 4);
    if (rows <= 16) return;
    _tile_stored(2, sums + 16 * width, width * 4);
    _tile_stored(3, sums + 16 * width + 16, width * 4);
#else
    (void)rows, (void)sums, (void)width;
#endif
}

// Rows that are computed at one time.
INLINE i64 rows_at_once(void) { return pie_has_tiles ? 32 : MOST_ROWS; }
