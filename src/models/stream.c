/* See stream.h.
 *
 *     ABSENT --request--> WANTED --the thread--> READ --before--> LOADED --its buffer is needed--> ABSENT
 *
 * Only the thread takes a segment from WANTED to READ (or to FAILED), all else is done by whoever
 * computes. A segment that has been computed keeps its buffer until another one needs it: block 0
 * may be asked for twice in a row. */
#include "models/stream.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/disk.h"

#define MIB 1048576.0
enum { NO_SEGMENT = -1, CHUNK = 16 << 20 };

enum state { ABSENT, WANTED, READ, FAILED, LOADED };

/* Bytes of one file that lie together. */
struct piece {
    int file;
    uint64_t offset;
    size_t bytes, needed, at; /* `at`: where in the segment's buffer */
};

struct segment {
    struct piece *pieces;
    int num_pieces;
    struct load_copies copies; /* where the mapped bytes lie in the buffer; its memory is known once there is one */
    size_t bytes;              /* of the buffer */
    size_t cost;  /* of memory: with what is converted */
    bool is_mine, is_kept;
    enum state state;
    struct buffer *buffer; /* NULL while ABSENT */
};

struct buffer {
    char *memory;
    size_t bytes;
    int segment; /* or NO_SEGMENT */
};

struct component_stream {
    struct component *component;
    struct segment_watch watch;
    struct disk_file *files;
    int num_files;
    struct segment *segments; /* [num_segments]: embed, blocks, finish */
    int num_segments;
    struct buffer *buffers; /* the rotating ones first, then one for each segment that is kept */
    int num_rotating, num_buffers;
    int computing; /* the segment between `before` and `after`; NO_SEGMENT */
    struct stream_counts counts;

    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock; /* guards what follows, and the segments' states */
    pthread_cond_t changed;
    int *queue, queued; /* segments to read, the next first */
    bool stops;
    tessera_error error; /* of the segment that FAILED */
};

static size_t aligned(size_t bytes) {
    return (bytes + DISK_ALIGNMENT - 1) / DISK_ALIGNMENT * DISK_ALIGNMENT;
}

/* ---- what lies where ---- */

struct located {
    const struct load_span *span;
    int file;
    uint64_t offset;
};

static int by_place(const void *a, const void *b) {
    const struct located *x = a, *y = b;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int by_address(const void *a, const void *b) {
    const struct load_copy *x = a, *y = b;
    return x->from < y->from ? -1 : x->from > y->from;
}

/* The place of a file among s->files, opened on first use; -1 and `error` on failure. */
static int file_of(struct component_stream *s, const struct weights_place *place, int descriptors[], tessera_error *error) {
    for (int i = 0; i < s->num_files; i++)
        if (descriptors[i] == place->descriptor) return i;
    struct disk_file *files = realloc(s->files, (size_t)(s->num_files + 1) * sizeof *files);
    if (files == NULL) {
        error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to read it", place->path);
        return -1;
    }
    s->files = files;
    if (disk_file_open(place->descriptor, place->path, &files[s->num_files], error) != TESSERA_OK) return -1;
    descriptors[s->num_files] = place->descriptor;
    return s->num_files++;
}

/* Spans in the order of the files, as pieces; what lies together is one. */
static void make_pieces(struct segment *segment, const struct located *found, int count) {
    struct piece *piece = NULL;
    for (int i = 0; i < count; i++) {
        uint64_t first = found[i].offset / DISK_ALIGNMENT * DISK_ALIGNMENT, end = found[i].offset + found[i].span->bytes;
        bool joins = piece != NULL && piece->file == found[i].file && first <= piece->offset + piece->bytes;
        if (!joins) {
            size_t at = piece != NULL ? piece->at + piece->bytes : 0;
            piece = &segment->pieces[segment->num_pieces++];
            *piece = (struct piece){.file = found[i].file, .offset = first, .at = at};
        }
        if (end > piece->offset + piece->needed) piece->needed = (size_t)(end - piece->offset);
        piece->bytes = aligned(piece->needed);
        segment->bytes = piece->at + piece->bytes;
        size_t at = piece->at + (size_t)(found[i].offset - piece->offset);
        segment->copies.list[segment->copies.count++] = (struct load_copy){found[i].span->data, found[i].span->bytes, at, false};
    }
    segment->copies.bytes = segment->bytes;
    qsort(segment->copies.list, (size_t)segment->copies.count, sizeof *segment->copies.list, by_address);
}

/* Spans that are not in a mapped file are in memory for as long as the component is open. */
static tessera_status locate(struct component_stream *s, int index, int descriptors[], tessera_error *error) {
    const struct component_segment *p = &s->component->segments[index];
    struct segment *segment = &s->segments[index];
    struct located *found = calloc((size_t)p->num_spans + 1, sizeof *found);
    segment->pieces = calloc((size_t)p->num_spans + 1, sizeof *segment->pieces);
    segment->copies.list = calloc((size_t)p->num_spans + 1, sizeof *segment->copies.list);
    tessera_status status = TESSERA_OK;
    int count = 0;
    if (found == NULL || segment->pieces == NULL || segment->copies.list == NULL)
        status = error_set(error, TESSERA_ERROR_MEMORY, "no memory for a list of %d tensors", p->num_spans);
    for (int i = 0; i < p->num_spans && status == TESSERA_OK; i++) {
        struct weights_place place;
        if (!weights_locate(s->component->weights, p->spans[i].data, &place)) continue;
        int file = file_of(s, &place, descriptors, error);
        if (file < 0) status = error->status;
        found[count++] = (struct located){&p->spans[i], file, place.offset};
    }
    if (status == TESSERA_OK) {
        qsort(found, (size_t)count, sizeof *found, by_place);
        make_pieces(segment, found, count);
        segment->cost = segment->bytes + aligned(p->converted);
    }
    free(found);
    return status;
}

/* ---- what is kept ---- */

/* At most: each span may begin and end inside a disk's block. */
static size_t most_of(const struct component_segment *p) {
    return p->stored + aligned(p->converted) + (size_t)p->num_spans * 2 * DISK_ALIGNMENT;
}

size_t component_stream_segment(const struct component *c, int segment) {
    return most_of(&c->segments[segment + 1]);
}

size_t component_stream_whole(const struct component *c) {
    size_t bytes = 0;
    for (int i = 0; i < c->num_blocks + 2; i++)
        if (component_has_segment(c, i - 1)) bytes += most_of(&c->segments[i]);
    return bytes;
}

size_t component_stream_least(const struct component *c) {
    size_t most = 0;
    for (int i = 0; i < c->num_blocks + 2; i++)
        if (component_has_segment(c, i - 1) && most_of(&c->segments[i]) > most) most = most_of(&c->segments[i]);
    return most;
}

/* Marks `kept` of `count` segments, evenly, and returns the memory that goes with it where the
 * others pass through `rotating` buffers. */
static size_t mark_kept(struct component_stream *s, int kept, int count, int rotating) {
    size_t bytes = 0, widest = 0;
    for (int i = 0, place = 0; i < s->num_segments; i++) {
        struct segment *segment = &s->segments[i];
        if (!segment->is_mine) continue;
        segment->is_kept = (place + 1) * kept / count > place * kept / count;
        place++;
        if (segment->is_kept)
            bytes += segment->cost;
        else if (segment->cost > widest)
            widest = segment->cost;
    }
    return bytes + (size_t)rotating * widest;
}

static tessera_status choose_kept(struct component_stream *s, size_t budget, tessera_error *error) {
    int count = 0;
    for (int i = 0; i < s->num_segments; i++) count += s->segments[i].is_mine;
    for (int kept = count; kept >= 0; kept--) {
        s->num_rotating = kept == count ? 0 : 2;
        if (mark_kept(s, kept, count, s->num_rotating) <= budget) return TESSERA_OK;
    }
    s->num_rotating = 1;
    size_t least = mark_kept(s, 0, count, 1);
    if (least <= budget) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_MEMORY,
                     "%s: its largest block or embedding takes %.1f MiB of memory, and %.1f MiB are left for its weights: allow %.1f MiB more",
                     weights_folder(s->component->weights), (double)least / MIB, (double)budget / MIB, (double)(least - budget) / MIB);
}

static bool make_buffer(struct buffer *buffer, size_t bytes) {
    *buffer = (struct buffer){.bytes = bytes, .segment = NO_SEGMENT};
    if (bytes == 0) return true;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    buffer->memory = memory != MAP_FAILED ? memory : NULL;
    return buffer->memory != NULL;
}

static tessera_status make_buffers(struct component_stream *s, tessera_error *error) {
    size_t widest = 0;
    s->buffers = calloc((size_t)(s->num_segments + 2), sizeof *s->buffers);
    bool good = s->buffers != NULL;
    for (int i = 0; i < s->num_segments; i++)
        if (s->segments[i].is_mine && !s->segments[i].is_kept && s->segments[i].bytes > widest) widest = s->segments[i].bytes;
    for (int i = 0; i < s->num_rotating && good; i++) good = make_buffer(&s->buffers[s->num_buffers++], widest);
    for (int i = 0; i < s->num_segments && good; i++)
        if (s->segments[i].is_mine && s->segments[i].is_kept) good = make_buffer(&s->buffers[s->num_buffers++], s->segments[i].bytes);
    return good ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "no memory for the weights of some blocks");
}

/* ---- the thread ---- */

static bool is_stopped(struct component_stream *s) {
    pthread_mutex_lock(&s->lock);
    bool stops = s->stops;
    pthread_mutex_unlock(&s->lock);
    return stops;
}

static tessera_status read_piece(struct component_stream *s, const struct piece *piece, char *memory, tessera_error *error) {
    for (size_t done = 0; done < piece->bytes; done += CHUNK) {
        size_t left = piece->bytes - done, some = left < CHUNK ? left : CHUNK, needed = piece->needed - done;
        if (is_stopped(s)) return error_set(error, TESSERA_ERROR_CANCELLED, "stopped");
        TRY(disk_file_read(&s->files[piece->file], memory + piece->at + done, piece->offset + done, some, needed < some ? needed : some, error));
    }
    return TESSERA_OK;
}

static tessera_status read_segment(struct component_stream *s, const struct segment *segment, tessera_error *error) {
    for (int i = 0; i < segment->num_pieces; i++) TRY(read_piece(s, &segment->pieces[i], segment->buffer->memory, error));
    return TESSERA_OK;
}

static void *read_segments(void *user) {
    struct component_stream *s = user;
    pthread_mutex_lock(&s->lock);
    while (!s->stops) {
        if (s->queued == 0) {
            pthread_cond_wait(&s->changed, &s->lock);
            continue;
        }
        struct segment *segment = &s->segments[s->queue[0]];
        tessera_error error = {0};
        pthread_mutex_unlock(&s->lock);
        tessera_status status = read_segment(s, segment, &error);
        pthread_mutex_lock(&s->lock);
        memmove(s->queue, s->queue + 1, (size_t)--s->queued * sizeof *s->queue);
        segment->state = status == TESSERA_OK ? READ : FAILED;
        if (status == TESSERA_OK)
            s->counts.bytes_read += segment->bytes;
        else
            s->error = error;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- segments come and go ---- */

/* Under the lock: takes the segment out of its buffer. */
static void drop(struct component_stream *s, struct buffer *buffer) {
    struct segment *segment = &s->segments[buffer->segment];
    while (segment->state == WANTED) pthread_cond_wait(&s->changed, &s->lock);
    if (segment->state == LOADED) component_drop_block(s->component, buffer->segment - 1);
    segment->state = ABSENT;
    segment->buffer = NULL;
    buffer->segment = NO_SEGMENT;
}

/* Under the lock: a buffer for the segment; NULL if all are taken. `by_force`: from a segment that
 * is not being computed. */
static struct buffer *find_buffer(struct component_stream *s, int index, bool by_force) {
    const struct segment *segment = &s->segments[index];
    int first = segment->is_kept ? s->num_rotating : 0, end = segment->is_kept ? s->num_buffers : s->num_rotating;
    struct buffer *taken = NULL;
    for (int i = first; i < end; i++) {
        struct buffer *b = &s->buffers[i];
        if (b->segment == NO_SEGMENT && b->bytes >= segment->bytes && (!segment->is_kept || b->bytes == segment->bytes)) return b;
        if (!segment->is_kept && b->segment != s->computing && (by_force || s->segments[b->segment].state == LOADED)) taken = b;
    }
    if (taken != NULL) drop(s, taken);
    return taken;
}

/* Under the lock: asks for a segment that is absent, if there is a buffer for it. */
static bool request(struct component_stream *s, int index, bool by_force) {
    struct segment *segment = &s->segments[index];
    struct buffer *buffer = find_buffer(s, index, by_force);
    if (buffer == NULL) return false;
    buffer->segment = index;
    segment->buffer = buffer;
    segment->state = WANTED;
    s->queue[s->queued++] = index;
    pthread_cond_broadcast(&s->changed);
    return true;
}

/* Under the lock: asks for the segments behind `index`, as far as there are buffers; behind the
 * last comes the first, of the next pass. */
static void request_next(struct component_stream *s, int index) {
    for (int i = 1; i < s->num_segments; i++) {
        int next = (index + i) % s->num_segments;
        if (!s->segments[next].is_mine || s->segments[next].state != ABSENT) continue;
        if (!request(s, next, false)) return;
    }
}

/* Of a segment that stays, the pages that no layer borrows from go back to the system. */
static void release_copied(const struct load_copies *copies) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < copies->count; i++) {
        uintptr_t at = (uintptr_t)copies->memory + copies->list[i].at;
        uintptr_t begin = (at + page - 1) / page * page, end = (at + copies->list[i].bytes) / page * page;
        if (!copies->list[i].is_lent && begin < end) madvise((void *)begin, end - begin, MADV_DONTNEED);
    }
}

/* Its bytes are there: makes the segment's layers. */
static tessera_status load(struct component_stream *s, int index, tessera_error *error) {
    struct segment *segment = &s->segments[index];
    struct component_segment *p = &s->component->segments[index];
    segment->copies.memory = segment->buffer->memory;
    for (int i = 0; i < segment->copies.count; i++) segment->copies.list[i].is_lent = false;
    p->copies = &segment->copies;
    tessera_status status = component_load_block(s->component, index - 1, error);
    p->copies = NULL;
    if (status == TESSERA_OK && segment->is_kept) release_copied(&segment->copies);
    return status;
}

static tessera_status before(void *user, int number, tessera_error *error) {
    struct component_stream *s = user;
    int index = number + 1;
    struct segment *segment = &s->segments[index];
    tessera_status status = TESSERA_OK;
    if (!segment->is_mine) return TESSERA_OK; /* computed without weights */
    pthread_mutex_lock(&s->lock);
    s->computing = index;
    if (segment->state == FAILED) drop(s, segment->buffer);
    if (segment->state == ABSENT) request(s, index, true);
    double start = clock_seconds();
    while (segment->state == WANTED) pthread_cond_wait(&s->changed, &s->lock);
    s->counts.seconds_waited += clock_seconds() - start;
    if (segment->state == FAILED) status = error_set(error, s->error.status, "%s", s->error.message);
    pthread_mutex_unlock(&s->lock);
    if (status == TESSERA_OK && segment->state == READ) status = load(s, index, error);
    pthread_mutex_lock(&s->lock);
    if (status == TESSERA_OK) {
        segment->state = LOADED;
        request_next(s, index);
    } else {
        drop(s, segment->buffer);
        s->computing = NO_SEGMENT;
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

static void after(void *user, int number) {
    struct component_stream *s = user;
    (void)number;
    s->computing = NO_SEGMENT;
}

/* ---- opening and closing ---- */

static tessera_status describe(struct component_stream *s, size_t budget, tessera_error *error) {
    s->num_segments = s->component->num_blocks + 2;
    s->segments = calloc((size_t)s->num_segments, sizeof *s->segments);
    s->queue = calloc((size_t)s->num_segments, sizeof *s->queue);
    int *descriptors = calloc((size_t)weights_files(s->component->weights) + 1, sizeof *descriptors);
    tessera_status status = TESSERA_OK;
    if (s->segments == NULL || s->queue == NULL || descriptors == NULL)
        status = error_set(error, TESSERA_ERROR_MEMORY, "no memory for a list of %d blocks", s->num_segments);
    for (int i = 0; i < s->num_segments && status == TESSERA_OK; i++) {
        s->segments[i].is_mine = component_has_segment(s->component, i - 1);
        status = locate(s, i, descriptors, error);
    }
    free(descriptors);
    if (status == TESSERA_OK) status = choose_kept(s, budget, error);
    return status == TESSERA_OK ? make_buffers(s, error) : status;
}

static tessera_status start(struct component_stream *s, tessera_error *error) {
    s->has_thread = pthread_create(&s->thread, NULL, read_segments, s) == 0;
    if (!s->has_thread) return error_set(error, TESSERA_ERROR_MEMORY, "no thread to read weights with");
    component_watch(s->component, &s->watch);
    return TESSERA_OK;
}

tessera_status component_stream_open(struct component *component, size_t budget, struct component_stream **out, tessera_error *error) {
    struct component_stream *s = *out = calloc(1, sizeof *s);
    if (s == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    s->component = component;
    s->computing = NO_SEGMENT;
    s->watch = (struct segment_watch){.user = s, .before = before, .after = after};
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    tessera_status status = describe(s, budget, error);
    if (status == TESSERA_OK) status = start(s, error);
    if (status == TESSERA_OK) return TESSERA_OK;
    component_stream_close(s);
    *out = NULL;
    return status;
}

void component_stream_close(struct component_stream *s) {
    if (s == NULL) return;
    pthread_mutex_lock(&s->lock);
    s->stops = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (s->has_thread) pthread_join(s->thread, NULL);
    component_watch(s->component, NULL);
    for (int i = 0; s->segments != NULL && i < s->num_segments; i++) {
        if (s->segments[i].state == LOADED) component_drop_block(s->component, i - 1);
        free(s->segments[i].pieces);
        free(s->segments[i].copies.list);
    }
    for (int i = 0; i < s->num_buffers; i++)
        if (s->buffers[i].memory != NULL) munmap(s->buffers[i].memory, s->buffers[i].bytes);
    for (int i = 0; i < s->num_files; i++) disk_file_close(&s->files[i]);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s->files);
    free(s->buffers);
    free(s->queue);
    free(s->segments);
    free(s);
}

struct stream_counts component_stream_counts(struct component_stream *s) {
    pthread_mutex_lock(&s->lock);
    struct stream_counts counts = s->counts;
    pthread_mutex_unlock(&s->lock);
    return counts;
}

void component_stream_kept(const struct component_stream *s, int *kept, int *segments) {
    *kept = *segments = 0;
    for (int i = 0; i < s->num_segments; i++) {
        *segments += s->segments[i].is_mine;
        *kept += s->segments[i].is_mine && s->segments[i].is_kept;
    }
}
