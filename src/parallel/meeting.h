/* Meetings: what of a layer's work has to come together where positions or weights are cut over ranks, as data. A denoiser lists them with
 * each block, and a plan counts bytes and time from the list, so that planning never includes a model's header.
 *
 *     attention   every position asks all others: heads for positions, keys and values around a ring, or those of one step before
 *     sum         partial products of a layer whose inputs are cut
 *     join        shares of a layer's outputs, laid side by side
 *     halo        rows of the neighbours, for convolutions wider than 1x1
 *     norm        statistics of groups of channels over the whole picture
 *
 * The first three are needed where weights are cut (and attention where positions are), the last two where rows are. */
#ifndef TESSERA_PARALLEL_MEETING_H
#define TESSERA_PARALLEL_MEETING_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

enum meeting_kind { MEETING_ATTENTION, MEETING_SUM, MEETING_JOIN, MEETING_HALO, MEETING_NORM };

/* Whose positions meet. ONCE: none, one row for each picture. */
enum { MEETING_PICTURE = 1, MEETING_TEXT = 2, MEETING_ONCE = 4 };

struct meeting {
    enum meeting_kind kind;
    int count;            /* so many alike */
    unsigned of;          /* MEETING_PICTURE, ... */
    bool text_asks;       /* attention: the text is among the queries, not only among the keys */
    bool is_share;        /* where weights are cut, only a rank's share of the units takes part */
    int level;            /* the picture's rows and columns have been halved so often */
    int above, below;     /* halo: rows of each neighbour */
    int64_t units, width; /* heads, groups or single channels, and channels of each */
};

enum { MEETING_LIST_CAPACITY = 96 };
struct meeting_list {
    int count;
    struct meeting items[MEETING_LIST_CAPACITY];
};

static inline void meeting_add(struct meeting_list *list, struct meeting meeting) {
    assert(list->count < MEETING_LIST_CAPACITY);
    if (meeting.count > 0) list->items[list->count++] = meeting;
}

#endif
