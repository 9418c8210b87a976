/* Included first in the core: its dequeues and posts can fail. */
#include "simulated.h"

#define GetQueuedCompletionStatusEx sim_dequeue
#define PostQueuedCompletionStatus sim_post
