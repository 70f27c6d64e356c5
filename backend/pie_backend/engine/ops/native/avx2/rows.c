// What is done to each token by itself: norms and rotary positions.
#include "common.h"

int pie_use_tiles(int wanted) { return (void)wanted, 0; }

static float sum_of_squares(const bf16 *x, i64 size) {
    __m256 sum = _mm256_setzero_ps();
    for (i64 i = 0; i < size; i += 16) {
        const Pair part = load_first(size - i, x + i);
        sum = _mm256_fmadd_ps(part.even, part.even, sum);
        sum = _mm256_fmadd_ps(part.odd, part.odd, sum);
    }
    return sum_of(sum);
}

void norm_row(const bf16 *x, const bf16 *weight, bf16 *y, i64 size, float eps) {
    const __m256 scale = _mm256_set1_ps(1.0f / sqrtf(sum_of_squares(x, size) / size + eps));
    for (i64 i = 0; i < size; i += 16) {
        const Pair value = load_first(size - i, x + i), factor = load_first(size - i, weight + i);
        const Pair scaled = {_mm256_mul_ps(_mm256_mul_ps(value.even, scale), factor.even),
                             _mm256_mul_ps(_mm256_mul_ps(value.odd, scale), factor.odd)};
        store_first(size - i, y + i, scaled);
    }
}

i64 likeliest_of(const bf16 *x, i64 size) {
    const i64 whole = size / 16 * 16;
    __m256 even = _mm256_set1_ps(-INFINITY), odd = even;
    for (i64 i = 0; i < whole; i += 16) {
        const Pair part = load_pair(x + i);
        even = _mm256_max_ps(even, part.even);
        odd = _mm256_max_ps(odd, part.odd);
    }
    float most = most_of(_mm256_max_ps(even, odd));
    for (i64 i = whole; i < size; i++) most = fmaxf(most, value_of(x[i]));
    for (i64 i = 0; i < size; i++)
        if (value_of(x[i]) == most) return i;
    return 0;
}

// Of a multiple of 16 numbers.
void place_head(bf16 *x, const float *norm, const float *turns, i64 size, float eps) {
    const float root = norm ? 1.0f / sqrtf(sum_of_squares(x, size) / size + eps) : 1.0f;
    const __m256 scale = _mm256_set1_ps(root);
    for (i64 i = 0; i < size; i += 16) {
        Pair value = load_pair(x + i);
        value.even = _mm256_mul_ps(value.even, scale);
        value.odd = _mm256_mul_ps(value.odd, scale);
        if (norm) {
            const Pair weight = split(norm + i);
            value.even = _mm256_mul_ps(value.even, weight.even);
            value.odd = _mm256_mul_ps(value.odd, weight.odd);
        }
        const Pair turn = split(turns + i);  // cosines, sines
        store_pair(x + i, (Pair){_mm256_fmsub_ps(value.even, turn.even,
                                                 _mm256_mul_ps(value.odd, turn.odd)),
                                 _mm256_fmadd_ps(value.odd, turn.even,
                                                 _mm256_mul_ps(value.even, turn.odd))});
    }
}

int pie_screens(void) { return 0; }
