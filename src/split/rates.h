/* How often each of many callers does something: buckets of tickets, one per address or per token.
 *
 * A bucket holds at most `burst` tickets and gains `per_second`. The table has a fixed size, so
 * that callers from many addresses cannot fill the memory: of the places where an address may be
 * kept the one that was used longest ago is given to it. IPv6 addresses count by their first 64
 * bits, which are one customer's. */
#ifndef TESSERA_SPLIT_RATES_H
#define TESSERA_SPLIT_RATES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct rate {
    double per_second, burst; /* per_second 0: no limit */
};

struct bucket {
    double tickets, seconds; /* as of that time; 0: never used */
};
/* Takes a ticket; false if there is none, and then *wait (may be NULL) is in how many seconds there
 * will be. */
bool bucket_take(struct bucket *bucket, struct rate rate, double now, double *wait);

/* An address as the limits see it: without its port. */
struct rate_address {
    uint8_t bytes[16];
};
struct rate_address rate_address_of(const struct sockaddr *address);
bool rate_address_same(const struct rate_address *a, const struct rate_address *b);

enum { RATES_SETS = 512, RATES_WAYS = 8 };
struct rates {
    uint64_t seed; /* unknown to callers, so that they cannot choose addresses that displace another */
    struct {
        struct rate_address address;
        struct bucket bucket;
    } places[RATES_SETS][RATES_WAYS];
};
bool rates_take(struct rates *rates, const struct rate_address *address, struct rate rate, double now, double *wait);

#endif
