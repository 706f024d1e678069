/* See links.h. */
#include "split/links.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

void links_open(struct links *links, struct link_limits limits) {
    memset(links, 0, sizeof *links);
    pthread_mutex_init(&links->guard, NULL);
    links->limits = limits;
    if (getrandom(&links->rates.seed, sizeof links->rates.seed, 0) < 0) links->rates.seed = (uintptr_t)links;
}

void links_close(struct links *links) {
    pthread_mutex_destroy(&links->guard);
}

static void shut(struct link *link) {
    if (!link->shut) shutdown(link->socket, SHUT_RDWR);
    link->shut = true;
}

bool links_admit(struct links *links, const struct sockaddr *address, double now) {
    struct rate_address peer = rate_address_of(address);
    int same = 0;
    pthread_mutex_lock(&links->guard);
    for (const struct link *l = links->first; l != NULL; l = l->after) same += !l->shut && rate_address_same(&l->address, &peer);
    bool admitted = (links->limits.per_peer == 0 || same < links->limits.per_peer) &&
                    rates_take(&links->rates, &peer, links->limits.new_links, now, NULL);
    links->counts.refused += !admitted;
    pthread_mutex_unlock(&links->guard);
    return admitted;
}

/* The oldest newcomer that is still open goes. */
static void displace(struct links *links) {
    for (struct link *l = links->first; l != NULL; l = l->after) {
        if (l->token >= 0 || l->shut) continue;
        shut(l);
        links->counts.displaced++;
        links->counts.newcomers--;
        return;
    }
}

struct link *links_add(struct links *links, int socket, const struct sockaddr *address, double deadline) {
    struct link *link = calloc(1, sizeof *link);
    if (link == NULL) return NULL;
    *link = (struct link){.socket = socket, .address = rate_address_of(address), .token = -1, .deadline = deadline};
    pthread_mutex_lock(&links->guard);
    if (links->counts.newcomers >= links->limits.newcomers) displace(links);
    link->before = links->last;
    *(links->last != NULL ? &links->last->after : &links->first) = link;
    links->last = link;
    links->counts.opened++;
    links->counts.now++;
    links->counts.newcomers++;
    pthread_mutex_unlock(&links->guard);
    return link;
}

void links_remove(struct links *links, struct link *link) {
    pthread_mutex_lock(&links->guard);
    *(link->before != NULL ? &link->before->after : &links->first) = link->after;
    *(link->after != NULL ? &link->after->before : &links->last) = link->before;
    links->counts.now--;
    if (link->token < 0 && !link->shut) links->counts.newcomers--;
    pthread_mutex_unlock(&links->guard);
    free(link);
}

void links_set_deadline(struct links *links, struct link *link, double deadline) {
    pthread_mutex_lock(&links->guard);
    link->deadline = deadline;
    pthread_mutex_unlock(&links->guard);
}

bool links_show_token(struct links *links, struct link *link, int token) {
    int same = 0;
    pthread_mutex_lock(&links->guard);
    for (const struct link *l = links->first; l != NULL; l = l->after) same += l != link && !l->shut && l->token == token;
    bool allowed = links->limits.per_peer == 0 || same < links->limits.per_peer;
    if (allowed && link->token < 0 && !link->shut) links->counts.newcomers--;
    if (allowed) link->token = token;
    pthread_mutex_unlock(&links->guard);
    return allowed;
}

void links_expire(struct links *links, double now) {
    pthread_mutex_lock(&links->guard);
    for (struct link *l = links->first; l != NULL; l = l->after) {
        if (l->deadline == 0 || l->deadline > now || l->shut) continue;
        shut(l);
        links->counts.late++;
        if (l->token < 0) links->counts.newcomers--;
    }
    pthread_mutex_unlock(&links->guard);
}

struct link_counts links_counts(struct links *links) {
    pthread_mutex_lock(&links->guard);
    struct link_counts counts = links->counts;
    pthread_mutex_unlock(&links->guard);
    return counts;
}
