// What attention of rows of one token shares, with tiles and without.
#pragma once

#include "common.h"

// Where a token's numbers are, counted from its head's first.
static inline i64 place_of(const Task *task, i64 token) {
    const i64 page = token / task->page_size;
    return (task->pages[page] * task->page_size + token % task->page_size) * task->size;
}

// Numbers [0, 32), of which `low` has the first four of every eight and `high` the others.
static inline void store_unpaired(bf16 *out, __m512 low, __m512 high) {
    const __m512i front = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i back = _mm512_add_epi32(front, _mm512_set1_epi32(8));
    store_bf16(out, _mm512_permutex2var_ps(low, front, high));
    store_bf16(out + 16, _mm512_permutex2var_ps(low, back, high));
}

// What one query has gathered so far goes on from there, or from nothing where that is null.
static inline void resume(const float *gathered, i64 size, float *largest, float *total, __m512 *sums) {
    *largest = gathered ? gathered[MAX_SIZE] : -INFINITY;
    *total = gathered ? gathered[MAX_SIZE + 1] : 0;
    for (i64 d = 0; d < size / 16; d++)
        sums[d] = gathered ? _mm512_loadu_ps(gathered + d * 16) : _mm512_setzero_ps();
}

enum { TILE_QUERIES = 4 };

// At most TILE_QUERIES queries, and pie_has_tiles; `next` is what this thread attends to then.
void attend_on_tiles(const Task *task, const Task *next);
