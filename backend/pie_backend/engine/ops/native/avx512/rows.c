// What is done to each token by itself: norms and rotary positions.
#include "common.h"

int pie_has_tiles = 0;

#if HAS_AMX
#include <sys/syscall.h>
#include <unistd.h>

enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };

int pie_use_tiles(int wanted) {
    pie_has_tiles = wanted && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
    return pie_has_tiles;
}
#else
int pie_use_tiles(int wanted) { return (void)wanted, 0; }
#endif

static float sum_of_squares(const bf16 *x, i64 size) {
    __m512 sum = _mm512_setzero_ps();
    for (i64 i = 0; i < size; i += 16) {
        const __m512 part = load_bf16_masked(first(size - i), x + i);
        sum = _mm512_fmadd_ps(part, part, sum);
    }
    return _mm512_reduce_add_ps(sum);
}

void norm_row(const bf16 *x, const bf16 *weight, bf16 *y, i64 size, float eps) {
    const __m512 scale = _mm512_set1_ps(1.0f / sqrtf(sum_of_squares(x, size) / size + eps));
    for (i64 i = 0; i < size; i += 16) {
        const __mmask16 mask = first(size - i);
        const __m512 scaled = _mm512_mul_ps(load_bf16_masked(mask, x + i), scale);
        store_bf16_masked(y + i, mask, _mm512_mul_ps(scaled, load_bf16_masked(mask, weight + i)));
    }
}

i64 likeliest_of(const bf16 *x, i64 size) {
    __m512 most = _mm512_set1_ps(-INFINITY);
    for (i64 i = 0; i < size; i += 16) {
        const __mmask16 mask = first(size - i);
        most = _mm512_mask_max_ps(most, mask, most, load_bf16_masked(mask, x + i));
    }
    const __m512 largest = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    for (i64 i = 0; i < size; i += 16) {
        const __mmask16 mask = first(size - i);
        const __m512 part = load_bf16_masked(mask, x + i);
        const __mmask16 found = _mm512_mask_cmp_ps_mask(mask, part, largest, _CMP_EQ_OQ);
        if (found) return i + __builtin_ctz(found);
    }
    return 0;
}

void place_head(bf16 *x, const float *norm, const float *turns, i64 size, float eps) {
    const float scale = norm ? 1.0f / sqrtf(sum_of_squares(x, size) / size + eps) : 1.0f;
    for (i64 i = 0; i < size; i += 16) {
        const __mmask16 mask = first(size - i);
        __m512 value = _mm512_mul_ps(load_bf16_masked(mask, x + i), _mm512_set1_ps(scale));
        if (norm) value = _mm512_mul_ps(value, _mm512_maskz_loadu_ps(mask, norm + i));
        const __m512 turn = _mm512_maskz_loadu_ps(mask, turns + i);
        const __m512 cosines = _mm512_moveldup_ps(turn), sines = _mm512_movehdup_ps(turn);
        const __m512 swapped = _mm512_permute_ps(value, 0xb1);
        value = _mm512_fmaddsub_ps(value, cosines, _mm512_mul_ps(swapped, sines));
        store_bf16_masked(x + i, mask, value);
    }
}
