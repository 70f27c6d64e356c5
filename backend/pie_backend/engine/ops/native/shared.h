// What kernels of all kinds share, whatever the processor. bfloat16 is uint16_t; threads are OpenMP's,
// the same runtime that torch has loaded.
#pragma once

#include <omp.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;
typedef int64_t i64;

// Threads of every kernel; OpenMP's own default belongs to the thread that set it.
extern int pie_threads;

// Below so many numbers, waking other threads costs more than they save.
enum { WORTH_SHARING = 1 << 15 };

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

static inline i64 min64(i64 a, i64 b) { return a < b ? a : b; }
static inline i64 max64(i64 a, i64 b) { return a > b ? a : b; }
static inline i64 up_to(i64 n, i64 multiple) { return (n + multiple - 1) / multiple * multiple; }

// Of rows in parts that differ by one at most, so that no part is left with few.
static inline i64 part_begin(i64 rows, i64 parts, i64 number) { return rows * number / parts; }

// What threads share out among themselves piece by piece, so that one that something else holds up
// leaves its part to the others.
typedef struct {
    _Alignas(64) i64 taken;
    char alone_in_its_line[56];
} Pieces;

static inline i64 take_piece(Pieces *pieces) {
    return __atomic_fetch_add(&pieces->taken, 1, __ATOMIC_RELAXED);
}

// This thread's own, kept from call to call; what was in it may be gone when more is asked for.
void *pie_own_memory(i64 bytes);

enum { MAX_SIZE = 256 /* of a head */ };

// One query head group of one row of one token, and what it attends to.
typedef struct {
    const bf16 *q, *keys, *values;  // q [queries][size]; keys and values of one head
    const int32_t *pages;
    const float *bias;  // [length], added to the scores, or null
    bf16 *out;          // [queries][size]
    i64 length, page_size, size;
    int queries;
    float scale;
} Task;

typedef struct {
    const bf16 *q, *planes;
    const int32_t *pages;
    const i64 *lengths;
    const float *biases;
    bf16 *out;
    i64 rows, q_stride, kv_heads, queries, size, plane, page_size, width, bias_stride;
    float scale;
} Rows;

// Of all rows, their heads, and `most` queries of each at a time.
static inline Task task_of(const Rows *all, i64 number, i64 most) {
    const i64 parts = up_to(all->queries, most) / most, part = number % parts;
    const i64 head = number / parts % all->kv_heads, row = number / parts / all->kv_heads;
    const i64 query = head * all->queries + part * most;
    return (Task){
        .q = all->q + row * all->q_stride + query * all->size,
        .keys = all->planes + head * all->plane,
        .values = all->planes + (all->kv_heads + head) * all->plane,
        .pages = all->pages + row * all->width,
        .bias = all->biases ? all->biases + row * all->bias_stride : 0,
        .out = all->out + (row * all->kv_heads * all->queries + query) * all->size,
        .length = all->lengths[row],
        .page_size = all->page_size,
        .size = all->size,
        .queries = (int)min64(most, all->queries - part * most),
        .scale = all->scale,
    };
}
