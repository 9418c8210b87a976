/* Accessors of a pending operation, and queues of operations: inline, because every transfer uses them.
 *
 * Ownership: an OVERLAPPED is in one queue at most, linked through itself. The call's copy is freed when the operation
 * ends.
 * Threads: the port's owner.
 */
#ifndef IOCPCORE_LINUX_OVERLAPPED_H
#define IOCPCORE_LINUX_OVERLAPPED_H

#include "iocp.h"

enum { OVERLAPPED_ACCEPT = 1, OVERLAPPED_CONNECT, OVERLAPPED_RECEIVE, OVERLAPPED_SEND };
enum { OVERLAPPED_CANCELLED = 1 /* by CancelIoEx or closesocket */ };

/* Operations in the order of their start. */
struct overlapped_queue {
    OVERLAPPED *head;
    OVERLAPPED *tail;
};

/* The copy that a call with several WSABUFs makes. */
struct gathered {
    struct msghdr message;
    struct iovec buffers[];
};

static inline void overlapped_enqueue(struct overlapped_queue *queue, OVERLAPPED *overlapped)
{
    overlapped->next = NULL;
    if (queue->head == NULL)
        queue->head = overlapped;
    else
        queue->tail->next = overlapped;
    queue->tail = overlapped;
}

static inline OVERLAPPED *overlapped_dequeue(struct overlapped_queue *queue)
{
    OVERLAPPED *first = queue->head;

    if (first != NULL)
        queue->head = first->next;
    return first;
}

/* 1 if it was in the queue. */
static inline int overlapped_remove(struct overlapped_queue *queue, OVERLAPPED *overlapped)
{
    OVERLAPPED **link = &queue->head, *before = NULL;

    while (*link != NULL && *link != overlapped) {
        before = *link;
        link = &before->next;
    }
    if (*link == NULL)
        return 0;
    *link = overlapped->next;
    if (queue->tail == overlapped)
        queue->tail = before;
    return 1;
}

/* Only for a call with several WSABUFs. */
static inline struct msghdr *overlapped_message(OVERLAPPED *overlapped)
{
    struct gathered *copy = overlapped->copy;

    return &copy->message;
}

static inline struct iovec *overlapped_buffers(OVERLAPPED *overlapped)
{
    struct gathered *copy = overlapped->copy;

    return copy != NULL ? copy->buffers : &overlapped->first;
}

static inline size_t overlapped_length(OVERLAPPED *overlapped)
{
    const struct iovec *buffers = overlapped_buffers(overlapped);
    size_t length = 0;

    if (overlapped->buffers == 1)
        return overlapped->first.iov_len; /* nearly always */
    for (unsigned i = 0; i < overlapped->buffers; i++)
        length += buffers[i].iov_len;
    return length;
}

/* Skips bytes that were transferred: its buffers then describe the rest. */
static inline void overlapped_advance(OVERLAPPED *overlapped, size_t bytes)
{
    struct iovec *buffers = overlapped_buffers(overlapped);

    for (unsigned i = 0; bytes > 0; i++) {
        size_t step = bytes < buffers[i].iov_len ? bytes : buffers[i].iov_len;

        buffers[i].iov_base = (char *)buffers[i].iov_base + step;
        buffers[i].iov_len -= step;
        bytes -= step;
    }
}

#endif
