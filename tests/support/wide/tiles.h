// The tiles of AMX: eight of sixteen rows of 64 bytes for each thread.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#define __AMX_TILE__ 1
#define __AMX_BF16__ 1

static __thread struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} wide_shapes;

static __thread uint8_t wide_tiles[8][16][64];

static inline void wide_zero(int tile) { memset(wide_tiles[tile], 0, sizeof wide_tiles[tile]); }

static inline void wide_release(void) { memset(wide_tiles, 0, sizeof wide_tiles); }

static inline void wide_loadconfig(const void *at) {
    memcpy(&wide_shapes, at, sizeof wide_shapes);
    wide_release();
}

static inline void wide_loadd(int tile, const void *at, int64_t stride) {
    wide_zero(tile);
    for (int row = 0; row < wide_shapes.rows[tile]; row++)
        memcpy(wide_tiles[tile][row], (const char *)at + row * stride, wide_shapes.row_bytes[tile]);
}

static inline void wide_stored(int tile, void *at, int64_t stride) {
    for (int row = 0; row < wide_shapes.rows[tile]; row++)
        memcpy((char *)at + row * stride, wide_tiles[tile][row], wide_shapes.row_bytes[tile]);
}

// sums[row][column] += the pairs of a row of `left` by those of a column of `right`.
static inline void wide_dpbf16ps(int sums, int left, int right) {
    for (int row = 0; row < wide_shapes.rows[sums]; row++) {
        __m512 sum = simde_mm512_loadu_ps(wide_tiles[sums][row]);
        for (int k = 0; k < wide_shapes.row_bytes[left] / 4; k++) {
            int32_t pair;
            memcpy(&pair, wide_tiles[left][row] + 4 * k, sizeof pair);
            sum = wide_dpbf16_ps(sum, simde_mm512_set1_epi32(pair),
                                 simde_mm512_loadu_si512(wide_tiles[right][k]));
        }
        simde_mm512_storeu_ps(wide_tiles[sums][row], sum);
    }
}

#undef _tile_zero
#undef _tile_release
#undef _tile_loadconfig
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_zero wide_zero
#define _tile_release wide_release
#define _tile_loadconfig wide_loadconfig
#define _tile_loadd wide_loadd
#define _tile_stored wide_stored
#define _tile_dpbf16ps wide_dpbf16ps

// Whoever asks the kernel for tiles is told that they may use them.
#define syscall(...) 0L
