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

// y = x / sqrt(mean(x^2) + eps) * weight, row by row
void pie_rms_norm(const bf16 *x, const bf16 *weight, bf16 *y, i64 rows, i64 size, float eps) {
#pragma omp parallel for num_threads(pie_threads) schedule(static) if (rows * size > WORTH_SHARING)
    for (i64 row = 0; row < rows; row++) {
        const bf16 *from = x + row * size;
        const __m256 scale = _mm256_set1_ps(1.0f / sqrtf(sum_of_squares(from, size) / size + eps));
        for (i64 i = 0; i < size; i += 16) {
            const Pair value = load_first(size - i, from + i);
            const Pair factor = load_first(size - i, weight + i);
            const Pair scaled = {_mm256_mul_ps(_mm256_mul_ps(value.even, scale), factor.even),
                                 _mm256_mul_ps(_mm256_mul_ps(value.odd, scale), factor.odd)};
            store_first(size - i, y + row * size + i, scaled);
        }
    }
}

// One head in place: normalised where it has a norm, then every pair (2i, 2i + 1) turned.
static void place_head(bf16 *x, const float *norm, const float *turns, i64 size, float eps) {
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

// qkv [tokens][stride]: query and key heads first, of a multiple of 16 numbers. norms float32
// [heads][size] or null, turns float32 [positions][size]: the complex rotation of each pair.
void pie_place(bf16 *qkv, const float *norms, const float *turns, const i64 *positions, i64 tokens,
               i64 stride, i64 heads, i64 size, float eps) {
#pragma omp parallel for num_threads(pie_threads) schedule(static) if (tokens * heads * size > WORTH_SHARING)
    for (i64 token = 0; token < tokens; token++)
        for (i64 head = 0; head < heads; head++)
            place_head(qkv + token * stride + head * size, norms ? norms + head * size : 0,
                       turns + positions[token] * size, size, eps);
}
