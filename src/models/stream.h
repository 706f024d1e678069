/* A component's weights read from the disk while it computes, so that only some of its segments are
 * in memory.
 *
 *     buffers    segment 3 (computes) | segment 4 (is being read)            two, or one where two do not fit
 *     kept       segments 0, 6, 12, ... as many as the budget holds, spread evenly: the disk has their time to read the others
 *
 * A thread reads the segments that come next, in the order in which they are computed, into memory
 * that is reused; the layers borrow from it as they would from the mapped file (load.h), whose
 * pages are never touched. The component tells when it computes which segment (segment.h). */
#ifndef TESSERA_MODELS_STREAM_H
#define TESSERA_MODELS_STREAM_H

#include "models/registry.h"

struct component_stream;

/* What a stream has done. */
struct stream_counts {
    uint64_t bytes_read;
    double seconds_waited; /* for the disk, while nothing could be computed */
};

/* Watches `component`, which is open with none of its segments loaded and outlives the stream.
 * `budget`: bytes of memory for its weights. MEMORY if the largest segment alone takes more, with
 * how much; IO where its files cannot be read. */
tessera_status component_stream_open(struct component *component, size_t budget, struct component_stream **out, tessera_error *error);
/* Drops all segments and waits for the reading thread; NULL is allowed. */
void component_stream_close(struct component_stream *stream);
struct stream_counts component_stream_counts(struct component_stream *stream);
/* How many of its segments stay in memory, of how many. */
void component_stream_kept(const struct component_stream *stream, int *kept, int *segments);

/* The memory that all segments that this rank loads take, and that the least budget has to be. */
size_t component_stream_whole(const struct component *component);
size_t component_stream_least(const struct component *component);
/* The memory that one segment takes. */
size_t component_stream_segment(const struct component *component, int segment);

#endif
