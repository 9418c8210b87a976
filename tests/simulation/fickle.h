/* Included before all else by the core: what it asks of a port can fail. */
#include "simulated.h"

#define GetQueuedCompletionStatusEx sim_dequeue
#define PostQueuedCompletionStatus sim_post
