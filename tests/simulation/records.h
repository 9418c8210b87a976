/* Records: the bytes on the wire where the core's sessions have a layer. Each has five bytes of its own, then the
 * user's.
 *
 * The five are a mark and the number of the user's bytes. A record with none of these is the last word of its side.
 * Peers, the simulated wire and the layer itself (_layer.pxi) read records by the same functions.
 * Ownership: the caller's.
 * Threads: the world's.
 */
#ifndef IOCPCORE_TESTS_RECORDS_H
#define IOCPCORE_TESTS_RECORDS_H

#include <string.h>

enum { RECORD_HEAD = 5, RECORD_MOST = 4096, RECORD_MARK = 0x17 };

/* How far one side's stream of records has been read. */
struct records {
    unsigned char head[RECORD_HEAD];
    size_t head_count;
    int begun;    /* something has been read */
    size_t left;  /* of the user's bytes in this record */
    int complete; /* the last step has reached the end of a record */
    int last;     /* ... of the last word */
    int wrong;    /* the bytes are no record, or come after the last word */
};

static inline void record_head(unsigned char *head, size_t length)
{
    head[0] = RECORD_MARK;
    for (int i = 1; i < RECORD_HEAD; i++)
        head[i] = (unsigned char)(length >> 8 * (i - 1));
}

static inline size_t record_length(const unsigned char *head)
{
    size_t length = 0;

    for (int i = 1; i < RECORD_HEAD; i++)
        length |= (size_t)head[i] << 8 * (i - 1);
    return length;
}

/* Reads on in *bytes, to the end of one record at most, and moves *bytes and *count past what it has read. At most
 * `most` of the user's bytes are read, and copied unless `to` is NULL; returns how many they were.
 */
static inline size_t records_step(struct records *r, const unsigned char **bytes, size_t *count, unsigned char *to,
                                  size_t most)
{
    size_t here = RECORD_HEAD - r->head_count < *count ? RECORD_HEAD - r->head_count : *count;

    r->complete = 0;
    r->begun |= *count > 0;
    r->wrong |= r->last && *count > 0;
    memcpy(r->head + r->head_count, *bytes, here);
    r->head_count += here;
    *bytes += here;
    *count -= here;
    if (here > 0 && r->head_count == RECORD_HEAD) {
        r->left = record_length(r->head);
        r->wrong |= r->head[0] != RECORD_MARK || r->left > RECORD_MOST;
        r->last |= r->left == 0;
    }
    if (r->head_count < RECORD_HEAD)
        return 0;
    here = r->left < *count ? r->left : *count;
    here = here < most ? here : most;
    if (to != NULL)
        memcpy(to, *bytes, here);
    *bytes += here;
    *count -= here;
    r->left -= here;
    if (r->left == 0) {
        r->complete = 1;
        r->head_count = 0;
    }
    return here;
}

/* Reads these bytes; returns how many of them are the user's. */
static inline size_t records_count(struct records *r, const void *bytes, size_t count)
{
    const unsigned char *at = bytes;
    size_t users = 0;

    while (count > 0 && !r->wrong)
        users += records_step(r, &at, &count, NULL, count);
    return users;
}

#endif
