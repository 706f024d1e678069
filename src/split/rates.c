/* See rates.h. */
#include "split/rates.h"

#include <netinet/in.h>
#include <stddef.h>
#include <string.h>

bool bucket_take(struct bucket *b, struct rate rate, double now, double *wait) {
    if (rate.per_second <= 0) return true;
    double gained = b->seconds == 0 ? rate.burst : b->tickets + (now - b->seconds) * rate.per_second;
    b->tickets = gained < rate.burst ? gained : rate.burst;
    b->seconds = now;
    if (wait != NULL) *wait = (1 - b->tickets) / rate.per_second;
    if (b->tickets < 1) return false;
    b->tickets -= 1;
    return true;
}

struct rate_address rate_address_of(const struct sockaddr *address) {
    struct rate_address out = {{0}};
    if (address->sa_family == AF_INET) {
        out.bytes[10] = out.bytes[11] = 0xff; /* as IPv6 maps it */
        memcpy(out.bytes + 12, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
    } else if (address->sa_family == AF_INET6) {
        const struct in6_addr *a = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
        memcpy(out.bytes, a, IN6_IS_ADDR_V4MAPPED(a) ? 16 : 8);
    }
    return out;
}

bool rate_address_same(const struct rate_address *a, const struct rate_address *b) {
    return memcmp(a, b, sizeof *a) == 0;
}

/* FNV-1a from a seed, with the last step of MurmurHash3 (Appleby 2008), so that the last bytes
 * reach all bits. */
static size_t set_of(const struct rates *rates, const struct rate_address *address) {
    uint64_t hash = 14695981039346656037u ^ rates->seed;
    for (size_t i = 0; i < sizeof address->bytes; i++) hash = (hash ^ address->bytes[i]) * 1099511628211u;
    hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccdu;
    return (size_t)(hash >> 33) % RATES_SETS;
}

bool rates_take(struct rates *rates, const struct rate_address *address, struct rate rate, double now, double *wait) {
    size_t set = set_of(rates, address), at = 0;
    for (size_t i = 0; i < RATES_WAYS; i++) {
        if (rates->places[set][i].bucket.seconds != 0 && rate_address_same(&rates->places[set][i].address, address)) {
            at = i;
            break;
        }
        if (rates->places[set][i].bucket.seconds < rates->places[set][at].bucket.seconds) at = i;
    }
    if (!rate_address_same(&rates->places[set][at].address, address)) {
        rates->places[set][at].address = *address;
        rates->places[set][at].bucket = (struct bucket){0};
    }
    return bucket_take(&rates->places[set][at].bucket, rate, now, wait);
}
