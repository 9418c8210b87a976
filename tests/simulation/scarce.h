/* Included first in the core and its calls: they allocate from the simulation. */
#define _GNU_SOURCE /* before a file can define it itself */
#include <stdlib.h>

#include "blocks.h"

#define malloc(size) scarce_malloc(size)
#define calloc(count, size) scarce_calloc(count, size)
#define realloc(memory, size) scarce_realloc(memory, size)
#define free(memory) scarce_free(memory)
