/* Included before all else by the core and its calls: their memory is the simulation's. */
#define _GNU_SOURCE /* this comes before what a file itself says */
#include <stdlib.h>

#include "blocks.h"

#define malloc(size) scarce_malloc(size)
#define calloc(count, size) scarce_calloc(count, size)
#define realloc(memory, size) scarce_realloc(memory, size)
#define free(memory) scarce_free(memory)
