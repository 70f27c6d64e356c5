// One query head group of one row of one token, and what it attends to.
#pragma once

#include "common.h"

enum { MAX_SIZE = 256 /* of a head */ };

typedef struct {
    const bf16 *q, *keys, *values;  // q [queries][size]; keys and values of one head
    const int32_t *pages;
    const float *bias;  // [length], added to the scores, or null
    bf16 *out;          // [queries][size]
    i64 length, page_size, size;
    int queries;
    float scale;
} Task;

// Where a token's numbers are, counted from its head's first.
static inline i64 place_of(const Task *task, i64 token) {
    const i64 page = token / task->page_size;
    return (task->pages[page] * task->page_size + token % task->page_size) * task->size;
}

// Asks for a head's first tokens from memory: pages are too short for the processor to guess them.
static inline void fetch(const Task *task, const bf16 *plane) {
    enum { TOKENS = 256, LINE = 32 /* bf16 */ };
    const i64 end = min64(TOKENS, task->length), per_page = task->page_size * task->size;
    for (i64 page = 0; page * task->page_size < end; page++) {
        const bf16 *at = plane + task->pages[page] * per_page;
        for (i64 i = 0; i < per_page; i += LINE) _mm_prefetch((const char *)(at + i), _MM_HINT_T1);
    }
}

enum { TILE_QUERIES = 4 };

// At most TILE_QUERIES queries, and pie_has_tiles; `next` is what this thread attends to then.
void attend_on_tiles(const Task *task, const Task *next);
