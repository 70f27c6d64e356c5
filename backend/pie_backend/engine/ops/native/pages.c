// Keys and values to their pages; and what threads all kernels have.
#include <stdlib.h>

#include "shared.h"

int pie_threads = 1;

void pie_set_threads(int threads) { pie_threads = threads; }

void *pie_own_memory(i64 bytes) {
    static _Thread_local void *memory;
    static _Thread_local i64 size;
    if (bytes > size) {
        free(memory);
        memory = aligned_alloc(64, up_to(bytes, 64));
        if (!memory) abort();
        size = bytes;
    }
    return memory;
}

// k, v [tokens][stride] to the planes of a layer, [2][heads][plane]; slots count tokens.
void pie_write(const bf16 *k, const bf16 *v, bf16 *planes, const i64 *slots, i64 tokens, i64 stride,
               i64 heads, i64 size, i64 plane) {
#pragma omp parallel for num_threads(pie_threads) schedule(static) if (tokens * heads * size > WORTH_SHARING)
    for (i64 token = 0; token < tokens; token++)
        for (i64 head = 0; head < heads; head++) {
            const i64 from = token * stride + head * size, to = slots[token] * size;
            memcpy(planes + head * plane + to, k + from, size * sizeof(bf16));
            memcpy(planes + (heads + head) * plane + to, v + from, size * sizeof(bf16));
        }
}
