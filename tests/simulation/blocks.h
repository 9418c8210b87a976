/* The allocations of the core and of its calls in the simulation's build: each can fail, and none may be left.
 *
 * Ownership: a block belongs to the caller; blocks_discard() frees those that a world leaves behind.
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
void blocks_keep(void);      /* those that exist now live as long as the process, and are not counted */

#endif
