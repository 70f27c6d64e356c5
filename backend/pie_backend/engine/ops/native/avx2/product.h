// The one inner loop: up to six rows of float32 times a panel, sixteen columns of bfloat16 or int8
// that lie side by side for each k: panel [k][16]. Six rows are all that sixteen registers hold.
#pragma once

#include "common.h"

enum { COLUMNS = 16, MOST_ROWS = 6, AHEAD = 2048 /* bytes */ };

INLINE Pair load_int8(const int8_t *at) {
    const __m256i both = _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)at));
    return (Pair){_mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(both, 24), 24)),
                  _mm256_cvtepi32_ps(_mm256_srai_epi32(both, 8))};
}

// sums += x panel; x [rows][stride], or [k][rows] where stride is 0; k a multiple of 4. `fresh`: the
// panel is not in a cache yet.
INLINE void multiply_rows(const int rows, const int int8, const float *x, const i64 stride,
                          const void *panel, i64 k, const int fresh, Pair *sums) {
    // Few rows are few sums, each of which has to wait for itself: several sets of them take turns.
    const int sets = rows == 1 ? 4 : rows <= 3 ? 2 : 1, size = int8 ? 1 : 2;
    Pair parts[12];
    UNROLL for (int i = 0; i < rows * sets; i++)
        parts[i] = i < rows ? sums[i] : (Pair){_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (i64 i = 0; i < k; i += sets) {
        UNROLL for (int set = 0; set < sets; set++) {
            const char *at = (const char *)panel + (i + set) * COLUMNS * size;
            if (fresh) _mm_prefetch(at + AHEAD, _MM_HINT_T0);
            const Pair w = int8 ? load_int8((const int8_t *)at) : load_pair((const bf16 *)at);
            UNROLL for (int row = 0; row < rows; row++) {
                const __m256 factor = _mm256_broadcast_ss(
                    stride ? x + row * stride + i + set : x + (i + set) * rows + row);
                Pair *part = parts + set * rows + row;
                part->even = _mm256_fmadd_ps(factor, w.even, part->even);
                part->odd = _mm256_fmadd_ps(factor, w.odd, part->odd);
            }
        }
    }
    UNROLL for (int row = 0; row < rows; row++) {
        sums[row] = parts[row];
        UNROLL for (int set = 1; set < sets; set++) {
            sums[row].even = _mm256_add_ps(sums[row].even, parts[set * rows + row].even);
            sums[row].odd = _mm256_add_ps(sums[row].odd, parts[set * rows + row].odd);
        }
    }
}

INLINE void multiply(int rows, const int int8, const float *x, const i64 stride, const void *panel,
                     i64 k, const int fresh, Pair sums[MOST_ROWS]) {
    switch (rows) {
    case 1: multiply_rows(1, int8, x, stride, panel, k, fresh, sums); break;
    case 2: multiply_rows(2, int8, x, stride, panel, k, fresh, sums); break;
    case 3: multiply_rows(3, int8, x, stride, panel, k, fresh, sums); break;
    case 4: multiply_rows(4, int8, x, stride, panel, k, fresh, sums); break;
    case 5: multiply_rows(5, int8, x, stride, panel, k, fresh, sums); break;
    case 6: multiply_rows(6, int8, x, stride, panel, k, fresh, sums); break;
    }
}

// bf16 rows of `stride` to float32 [k][rows], times `scale`.
INLINE void interleave(const bf16 *from, i64 stride, int rows, i64 k, float scale, float *to) {
    for (int row = 0; row < rows; row++)
        for (i64 i = 0; i < k; i++) {
            const uint32_t bits = (uint32_t)from[row * stride + i] << 16;
            float value;
            memcpy(&value, &bits, sizeof value);
            to[i * rows + row] = value * scale;
        }
}
