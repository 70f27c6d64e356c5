// What the kernels for AVX-512 share; sums are float32.
#pragma once

#include <immintrin.h>
#include <math.h>

#include "../shared.h"

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512BF16__) || \
    !defined(__AVX512VNNI__)
#error "these kernels need a processor with AVX-512 BF16 and VNNI"
#endif

#if defined(__AMX_BF16__) && defined(__AMX_TILE__)
#define HAS_AMX 1
#else
#define HAS_AMX 0
#endif

// AMX is there, and this process may use it.
extern int pie_has_tiles;

static inline __m512 load_bf16(const bf16 *at) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)at));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline __m512 load_bf16_masked(__mmask16 mask, const bf16 *at) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, at));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline void store_bf16(bf16 *at, __m512 x) {
    _mm256_storeu_si256((__m256i *)at, (__m256i)_mm512_cvtneps_pbh(x));
}

static inline void store_bf16_masked(bf16 *at, __mmask16 mask, __m512 x) {
    _mm256_mask_storeu_epi16(at, mask, (__m256i)_mm512_cvtneps_pbh(x));
}

static inline __mmask16 first(i64 count) {
    return count >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << count) - 1);
}

// e^x to about 2 ulp, after Cephes: x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial in r.
static inline __m512 exp_ps(__m512 x) {
    x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(88.0f)), _mm512_set1_ps(-104.0f));
    const __m512 n = _mm512_roundscale_ps(
        _mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), _MM_FROUND_TO_NEAREST_INT);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

// 2^x to 2^-14 of it, which is more than bfloat16 keeps; 0 for -inf.
static inline __m512 exp2_rough(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-200.0f));
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT);
    const __m512 r = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(9.6181291e-3f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

static inline __m512 silu_ps(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    return _mm512_div_ps(x, _mm512_add_ps(one, exp_ps(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

#if HAS_AMX
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} __attribute__((packed)) TileConfig;

// gcc's own forms do not tell the compiler that they read this memory: it would leave out, or put
// off, what was written there.
#define tile_load(tile, at, stride)         \
    do {                                    \
        __asm__ volatile("" ::: "memory");  \
        _tile_loadd(tile, at, stride);      \
    } while (0)

static inline void load_shapes(const TileConfig *config) {
    __asm__ volatile("" ::"r"(config) : "memory");
    _tile_loadconfig(config);
}

// Tiles 0-3 are sums, a pair of them for each half of up to 32 rows; 4 and 5 the halves of the left
// factor; 6 and 7 the right factor, always whole.
static inline void configure_tiles(int num_rows) {
    if (!pie_has_tiles) return;
    const int upper = num_rows < 16 ? num_rows : 16, lower = num_rows - upper;
    TileConfig config = {.palette = 1};
    const int rows[8] = {upper, upper, lower, lower, upper, lower, 16, 16};
    for (int i = 0; i < 8; i++) {
        config.rows[i] = (uint8_t)(rows[i] ? rows[i] : 1);
        config.row_bytes[i] = 64;
    }
    load_shapes(&config);
}

static inline void release_tiles(void) {
    if (pie_has_tiles) _tile_release();
}
#else
static inline void configure_tiles(int num_rows) { (void)num_rows; }
static inline void release_tiles(void) {}
#endif
