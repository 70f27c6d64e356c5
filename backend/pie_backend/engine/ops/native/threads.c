// How many threads all kernels have, and the memory of each.
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
