// AVX-512 and AMX for processors that have AVX2: SIMDe's instructions, and here those that it lacks or
// has wrong. As slow as can be expected; the numbers are those of the processor, but for denormals.
#pragma once

#include_next <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include "simde/x86/avx512.h"

#define __AVX512F__ 1
#define __AVX512BW__ 1
#define __AVX512BF16__ 1
#define __AVX512VNNI__ 1

#define EACH(i) for (int i = 0; i < 16; i++)

typedef float Floats __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));

// By itself: compilers would take minutes over the many places that it is unrolled to.
static __attribute__((noinline)) __m512 wide_dpbf16_ps(__m512 sum, __m512i x, __m512i y) {
    const Words a = (Words)x, b = (Words)y;
    const Floats odd = (Floats)(a & 0xffff0000u) * (Floats)(b & 0xffff0000u);
    const Floats even = (Floats)(a << 16) * (Floats)(b << 16);
    return (__m512)((Floats)sum + odd + even);
}
#undef _mm512_dpbf16_ps
#define _mm512_dpbf16_ps(sum, x, y) wide_dpbf16_ps(sum, (__m512i)(x), (__m512i)(y))

// To the nearest, of two the even one; what is no number stays none.
static inline uint16_t wide_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline __m256i wide_cvtneps_pbh(__m512 x) {
    uint16_t y[16];
    EACH(i) y[i] = wide_bf16(x[i]);
    return _mm256_loadu_si256((const __m256i *)y);
}
#undef _mm512_cvtneps_pbh
#define _mm512_cvtneps_pbh wide_cvtneps_pbh

static inline __m512i wide_cvtne2ps_pbh(__m512 high, __m512 low) {
    uint16_t y[32];
    EACH(i) y[i] = wide_bf16(low[i]);
    EACH(i) y[16 + i] = wide_bf16(high[i]);
    return simde_mm512_loadu_si512(y);
}
#undef _mm512_cvtne2ps_pbh
#define _mm512_cvtne2ps_pbh wide_cvtne2ps_pbh

static inline __m512i wide_cvtepi8_epi32(__m128i x) {
    int8_t bytes[16];
    int32_t y[16];
    memcpy(bytes, &x, sizeof bytes);
    EACH(i) y[i] = bytes[i];
    return simde_mm512_loadu_si512(y);
}
#undef _mm512_cvtepi8_epi32
#define _mm512_cvtepi8_epi32 wide_cvtepi8_epi32

static inline __m128i wide_cvtepi32_epi8(__m512i x) {
    int8_t y[16];
    EACH(i) y[i] = (int8_t)((Words)x)[i];
    return _mm_loadu_si128((const __m128i *)y);
}
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8 wide_cvtepi32_epi8

// Halves of what is left, as compilers do it.
static inline float wide_reduce_add_ps(__m512 x) {
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}
#undef _mm512_reduce_add_ps
#define _mm512_reduce_add_ps wide_reduce_add_ps

static inline int wide_reduce_add_epi32(__m512i x) {
    uint32_t sum = 0;
    EACH(i) sum += ((Words)x)[i];
    return (int)sum;
}
#undef _mm512_reduce_add_epi32
#define _mm512_reduce_add_epi32 wide_reduce_add_epi32

static inline float wide_mask_reduce_max_ps(__mmask16 mask, __m512 x) {
    float most = -INFINITY;
    EACH(i) if (mask >> i & 1) most = fmaxf(most, x[i]);
    return most;
}
#undef _mm512_mask_reduce_max_ps
#define _mm512_mask_reduce_max_ps wide_mask_reduce_max_ps

#undef _mm512_cvtss_f32
#define _mm512_cvtss_f32(x) ((x)[0])

#undef _mm512_mask_cmp_ps_mask
#define _mm512_mask_cmp_ps_mask(mask, a, b, how) ((mask) & simde_mm512_cmp_ps_mask(a, b, how))

static inline __m512 wide_permute_ps(__m512 x, int how) {
    __m512 y;
    EACH(i) y[i] = x[i / 4 * 4 + (how >> i % 4 * 2 & 3)];
    return y;
}
#undef _mm512_permute_ps
#define _mm512_permute_ps wide_permute_ps
#undef _mm512_moveldup_ps
#define _mm512_moveldup_ps(x) wide_permute_ps(x, 0xa0)
#undef _mm512_movehdup_ps
#define _mm512_movehdup_ps(x) wide_permute_ps(x, 0xf5)

static inline __m512 wide_fmaddsub_ps(__m512 a, __m512 b, __m512 c) {
    EACH(i) c[i] = fmaf(a[i], b[i], i % 2 ? c[i] : -c[i]);
    return c;
}
#undef _mm512_fmaddsub_ps
#define _mm512_fmaddsub_ps wide_fmaddsub_ps

// SIMDe's touch what is masked.
static inline void wide_mask_storeu_epi16(void *at, __mmask16 mask, __m256i x) {
    EACH(i) if (mask >> i & 1) memcpy((int16_t *)at + i, (const char *)&x + 2 * i, 2);
}
#undef _mm256_mask_storeu_epi16
#define _mm256_mask_storeu_epi16 wide_mask_storeu_epi16

static inline __m256i wide_maskz_loadu_epi16(__mmask16 mask, const void *at) {
    int16_t y[16] = {0};
    EACH(i) if (mask >> i & 1) memcpy(y + i, (const int16_t *)at + i, 2);
    return _mm256_loadu_si256((const __m256i *)y);
}
#undef _mm256_maskz_loadu_epi16
#define _mm256_maskz_loadu_epi16 wide_maskz_loadu_epi16

static inline __m512 wide_maskz_loadu_ps(__mmask16 mask, const void *at) {
    __m512 y = {0};
    EACH(i) if (mask >> i & 1) memcpy((float *)&y + i, (const float *)at + i, 4);
    return y;
}
#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_ps wide_maskz_loadu_ps

#ifdef WITH_TILES
#include "tiles.h"
#endif
