/* Latencies in ns: values up to 127 each have a bucket, larger ones share 64 buckets per power of two (1.6 %).
 *
 * Ownership: the caller's. Threads: one.
 */
#ifndef REFERENCE_HISTOGRAM_H
#define REFERENCE_HISTOGRAM_H

#include <stdint.h>

enum { SUB_BITS = 6, BUCKETS = (64 - SUB_BITS + 1) << SUB_BITS };

struct histogram {
    uint64_t count;
    uint64_t buckets[BUCKETS];
};

static inline unsigned bucket_of(uint64_t ns)
{
    unsigned shift;

    if (ns < 2u << SUB_BITS)
        return (unsigned)ns;
    shift = 63u - SUB_BITS - (unsigned)__builtin_clzll(ns);
    return (shift << SUB_BITS) + (unsigned)(ns >> shift);
}

static inline uint64_t largest_in(unsigned bucket)
{
    unsigned shift = bucket >> SUB_BITS;

    if (shift < 2)
        return bucket;
    shift--;
    return ((uint64_t)(bucket - (shift << SUB_BITS) + 1) << shift) - 1;
}

static inline void histogram_add(struct histogram *h, uint64_t ns)
{
    h->buckets[bucket_of(ns)]++;
    h->count++;
}

/* In microseconds; 0 when nothing was measured. */
static inline double percentile(const struct histogram *h, double share)
{
    uint64_t seen = 0;

    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > 0 && (double)seen >= share * (double)h->count)
            return (double)largest_in(i) / 1e3;
    }
    return 0;
}

#endif
