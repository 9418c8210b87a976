/* A list of all blocks. A block is overwritten before it is freed, so that a use after free shows.
 *
 * Ownership: as blocks.h says; the list's own words stand before each block.
 * Threads: the world's.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"
#include "simulated.h"

enum { SPOILT = 0xDD };

static const uint64_t LIVE = UINT64_C(0x6C6976656C697665);

struct block {
    uint64_t live;
    size_t size;
    struct block *next, *previous;
    _Alignas(max_align_t) char bytes[];
};

static struct block all = {.next = &all, .previous = &all};
static unsigned count;

static struct block *block_of(void *memory)
{
    struct block *b = (struct block *)(void *)((char *)memory - offsetof(struct block, bytes));

    if (b->live != LIVE)
        sim_violation("memory is freed that is not allocated");
    return b;
}

void *scarce_malloc(size_t size)
{
    struct block *b = sim_memory_is_short() ? NULL : malloc(sizeof *b + size);

    if (b == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    *b = (struct block){.live = LIVE, .size = size, .next = all.next, .previous = &all};
    all.next->previous = b;
    all.next = b;
    count++;
    memset(b->bytes, SPOILT, size); /* so that code that needs zeroed memory fails */
    return b->bytes;
}

void *scarce_calloc(size_t number, size_t size)
{
    void *memory = scarce_malloc(number * size);

    return memory != NULL ? memset(memory, 0, number * size) : NULL;
}

void scarce_free(void *memory)
{
    struct block *b;

    if (memory == NULL)
        return;
    b = block_of(memory);
    b->next->previous = b->previous;
    b->previous->next = b->next;
    count--;
    memset(b, SPOILT, sizeof *b + b->size);
    free(b);
}

void *scarce_realloc(void *memory, size_t size)
{
    void *grown = scarce_malloc(size);
    size_t before = memory != NULL ? block_of(memory)->size : 0;

    if (grown == NULL || memory == NULL)
        return grown;
    memcpy(grown, memory, before < size ? before : size);
    scarce_free(memory);
    return grown;
}

unsigned blocks_count(void)
{
    return count;
}

void blocks_discard(void)
{
    while (all.next != &all)
        scarce_free(all.next->bytes);
}

void blocks_keep(void)
{
    all.next = all.previous = &all;
    count = 0;
}
