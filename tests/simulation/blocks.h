/* The allocations of the core and of its calls, in the simulation's build: each can fail, none may be left.
 *
 * Ownership: what is allocated belongs to the caller; what a world leaves behind blocks_discard() frees.
 * Threads: the world's.
 */
#ifndef IOCPCORE_TESTS_BLOCKS_H
#define IOCPCORE_TESTS_BLOCKS_H

#include <stddef.h>

void *scarce_malloc(size_t size);
void *scarce_calloc(size_t count, size_t size);
void *scarce_realloc(void *memory, size_t size);
void scarce_free(void *memory);

unsigned blocks_count(void); /* allocated and not freed */
void blocks_discard(void);   /* frees them all */
void blocks_keep(void);      /* they are the process's, and no longer counted */

#endif
