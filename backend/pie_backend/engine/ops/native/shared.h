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

// What is called a part below is the work of one thread of a parallel region in which all take part;
// none of them waits for the others at its end.

enum { PLAIN, SILU, TIMES, PLUS };

// y [rows][n] = x W^T, and what follows.
typedef struct Job {
    const bf16 *x, *other;
    const void *weight;   // bf16, or int8 where there are scales
    const float *scales;  // [n], or null
    const float *bias;
    bf16 *y, *wide;
    i64 rows, n, k;
    int epilogue;
    // [k], or null: x is normalised before it is used.
    const bf16 *norm;
    float eps;
    // Of as many outputs of the same x, or null: each block is computed right after this one's.
    const struct Job *then;
} Job;

// What all do next, so that its weights can be asked for meanwhile; null where nothing is known.
typedef struct {
    const Job *job;
    Pieces *pieces;
} Next;

// `first`: this thread's first piece of `pieces`. Returns its first one of the next job.
i64 linear_part(const Job *job, Pieces *pieces, i64 first, Next next);

// y = x / sqrt(mean(x^2) + eps) * weight
void norm_row(const bf16 *x, const bf16 *weight, bf16 *y, i64 size, float eps);

// The first place of the largest number.
i64 likeliest_of(const bf16 *x, i64 size);

// One head in place: normalised where it has a norm, then every pair (2i, 2i + 1) turned.
void place_head(bf16 *x, const float *norm, const float *turns, i64 size, float eps);

enum { MAX_SIZE = 256 /* of a head */ };

// One query head group of one row of one token, and what it attends to.
typedef struct {
    const bf16 *q, *keys, *values;  // q [queries][size]; keys and values of one head
    const int32_t *pages;
    const float *bias;  // [length], added to the scores, or null
    bf16 *out;          // [queries][size]
    float *gathered;    // [queries], or null: what comes of tokens before `begin`
    i64 begin, length, page_size, size;
    int queries;
    float scale;
} Task;

// Rows of which several begin with the same pages: what these come to is gathered first, for all of
// a group at a time. Groups of one level have no row in common; those of the next go on from there.
typedef struct {
    const i64 *begins;       // [rows]: the first token that a row attends to by itself
    float *gathered;         // [rows][kv_heads * queries][GATHERED]
    const int32_t *members;  // rows, group by group
    const i64 *groups;       // [groups][4]: its first member, how many, tokens from, to
    const i64 *levels;       // [num_levels + 1]: each one's first group
    i64 num_levels;
} Together;

enum { MAX_LEVELS = 4, GATHERED = MAX_SIZE + 2 /* sums, the largest score, the sum of weights */ };

typedef struct {
    const bf16 *q, *planes;
    const int32_t *pages;
    const i64 *lengths;
    const float *biases;
    bf16 *out;
    i64 rows, q_stride, kv_heads, queries, size, plane, page_size, width, bias_stride;
    float scale;
    const Together *together;  // or null
} Rows;

void attend_part(const Rows *all, Pieces *pieces);

// A row of several tokens, of which each attends to all before it.
typedef struct {
    const bf16 *q, *planes;
    const int32_t *pages;
    bf16 *scratch, *out;
    i64 tokens, start, q_stride, kv_heads, queries, size, plane, page_size;
    float scale;
} Row;

// All threads wait for each other at its end.
void attend_causal_part(const Row *row);

// Of one level; there are none where `pie_gathers_together` says so.
void gather_part(const Rows *all, i64 level, Pieces *pieces);

static inline float *gathered_of(const Rows *all, i64 row, i64 query) {
    return all->together->gathered + (row * all->kv_heads * all->queries + query) * GATHERED;
}

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
        .gathered = all->together && all->together->begins[row] ? gathered_of(all, row, query) : 0,
        .begin = all->together ? all->together->begins[row] : 0,
        .length = all->lengths[row],
        .page_size = all->page_size,
        .size = all->size,
        .queries = (int)min64(most, all->queries - part * most),
        .scale = all->scale,
    };
}
