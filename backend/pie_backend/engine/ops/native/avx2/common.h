// What the kernels for AVX2 share; everything is computed in float32.
//
// Sixteen neighbours in bfloat16 are one load, and two vectors of float32: those at even places and
// those at odd places. They stay apart until they are stored.
#pragma once

#include <immintrin.h>
#include <math.h>

#include "../shared.h"

#if !defined(__AVX2__) || !defined(__FMA__)
#error "these kernels need a processor with AVX2 and FMA"
#endif

static inline float value_of(bf16 x) {
    const uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

typedef struct {
    __m256 even, odd;
} Pair;

INLINE Pair widen(__m256i both) {
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000);
    return (Pair){_mm256_castsi256_ps(_mm256_slli_epi32(both, 16)),
                  _mm256_castsi256_ps(_mm256_and_si256(both, upper))};
}

INLINE Pair load_pair(const bf16 *at) { return widen(_mm256_loadu_si256((const __m256i *)at)); }

// The first `count` of sixteen, then zeros.
INLINE Pair load_first(i64 count, const bf16 *at) {
    if (count >= 16) return load_pair(at);
    bf16 some[16] = {0};
    memcpy(some, at, count * sizeof(bf16));
    return load_pair(some);
}

// float32 at even and at odd places
INLINE Pair split(const float *at) {
    const __m256 a = _mm256_loadu_ps(at), b = _mm256_loadu_ps(at + 8);
    const __m256 low = _mm256_permute2f128_ps(a, b, 0x20), high = _mm256_permute2f128_ps(a, b, 0x31);
    return (Pair){_mm256_shuffle_ps(low, high, 0x88), _mm256_shuffle_ps(low, high, 0xdd)};
}

// To the nearest, ties to even, in the upper half of each lane; what is no number stays none.
INLINE __m256i rounded(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(last, _mm256_set1_epi32(0x7fff)));
    const __m256 none = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    return _mm256_blendv_epi8(up, _mm256_set1_epi32(0x7fc00000), _mm256_castps_si256(none));
}

INLINE __m256i narrow(Pair x) {
    return _mm256_blend_epi16(_mm256_srli_epi32(rounded(x.even), 16), rounded(x.odd), 0xaa);
}

INLINE void store_pair(bf16 *at, Pair x) { _mm256_storeu_si256((__m256i *)at, narrow(x)); }

INLINE void store_first(i64 count, bf16 *at, Pair x) {
    if (count >= 16) {
        store_pair(at, x);
        return;
    }
    bf16 some[16];
    store_pair(some, x);
    memcpy(at, some, count * sizeof(bf16));
}

INLINE float sum_of(__m256 x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

INLINE float most_of(__m256 x) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

// e^x to about 2 ulp, after Cephes: x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial in r; 0 from
// about -87 down.
INLINE __m256 exp_ps(__m256 x) {
    const __m256 least = _mm256_set1_ps(-87.0f);
    const __m256 gone = _mm256_cmp_ps(x, least, _CMP_LT_OQ);
    x = _mm256_max_ps(_mm256_min_ps(x, _mm256_set1_ps(88.0f)), least);
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341f)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1.0f)));
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_andnot_ps(gone, _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
}

// 2^x to 2^-14 of it, which is more than bfloat16 keeps; 0 from -126 down.
INLINE __m256 exp2_rough(__m256 x) {
    const __m256 least = _mm256_set1_ps(-126.0f);
    const __m256 gone = _mm256_cmp_ps(x, least, _CMP_LT_OQ);
    x = _mm256_max_ps(x, least);
    const __m256 n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 r = _mm256_sub_ps(x, n);
    __m256 p = _mm256_set1_ps(9.6181291e-3f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.5504109e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(2.4022651e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(6.9314718e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    const __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    const __m256i scaled = _mm256_add_epi32(_mm256_castps_si256(p), power);
    return _mm256_andnot_ps(gone, _mm256_castsi256_ps(scaled));
}

INLINE __m256 silu_ps(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f);
    return _mm256_div_ps(x, _mm256_add_ps(one, exp_ps(_mm256_sub_ps(_mm256_setzero_ps(), x))));
}
