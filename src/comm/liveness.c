/* Heartbeats, abort notices and the orderly end, as liveness.h describes them. All MPI calls here
 * are non-blocking. */
#include "comm/liveness.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define JUDGE_SECONDS 0.1

static void listen(struct liveness *l) {
    MPI_Irecv(&l->incoming, sizeof l->incoming, MPI_BYTE, MPI_ANY_SOURCE, 0, l->comm, &l->receive);
}

bool liveness_open(struct liveness *l, MPI_Comm comm, struct engine *engine, double now) {
    size_t size = (size_t)engine->size;
    *l = (struct liveness){.comm = comm, .engine = engine, .receive = MPI_REQUEST_NULL, .next_beat = now, .last_judged = now};
    l->sends = malloc(LIVENESS_KINDS * size * sizeof *l->sends);
    l->heard = calloc(size, sizeof *l->heard);
    l->said = calloc(LIVENESS_KINDS * size, sizeof *l->said);
    if (l->sends == NULL || l->heard == NULL || l->said == NULL) {
        liveness_forget(l);
        return false;
    }
    for (size_t i = 0; i < LIVENESS_KINDS * size; i++) l->sends[i] = MPI_REQUEST_NULL;
    for (size_t i = 0; i < size; i++) l->heard[i] = now;
    for (int kind = 0; kind < LIVENESS_KINDS; kind++) l->outgoing[kind].kind = kind;
    listen(l);
    return true;
}

void liveness_forget(struct liveness *l) {
    free(l->said);
    free(l->heard);
    free(l->sends);
}

void liveness_close(struct liveness *l) {
    MPI_Cancel(&l->receive);
    MPI_Wait(&l->receive, MPI_STATUS_IGNORE);
    MPI_Waitall(LIVENESS_KINDS * l->engine->size, l->sends, MPI_STATUSES_IGNORE);
    liveness_forget(l);
}

void liveness_tell(struct liveness *l, enum liveness_kind kind, const tessera_error *error) {
    struct liveness_note *note = &l->outgoing[kind];
    l->said[kind * l->engine->size + l->engine->rank] = true;
    size_t bytes = offsetof(struct liveness_note, text);
    if (error != NULL) {
        note->status = error->status;
        memcpy(note->text, error->message, sizeof note->text);
        bytes = sizeof *note;
    }
    for (int to = 0; to < l->engine->size; to++) {
        MPI_Request *send = &l->sends[kind * l->engine->size + to];
        int free_again = 1;
        if (*send != MPI_REQUEST_NULL) MPI_Test(send, &free_again, MPI_STATUS_IGNORE);
        if (to != l->engine->rank && free_again) MPI_Isend(note, (int)bytes, MPI_BYTE, to, 0, l->comm, send);
    }
}

bool liveness_told(struct liveness *l, enum liveness_kind kind) {
    int all = 1;
    MPI_Testall(l->engine->size, l->sends + kind * l->engine->size, &all, MPI_STATUSES_IGNORE);
    return all != 0;
}

bool liveness_all_said(const struct liveness *l, enum liveness_kind kind) {
    for (int rank = 0; rank < l->engine->size; rank++)
        if (rank != l->engine->rank && !l->said[kind * l->engine->size + rank]) return false;
    return true;
}

static void hear(struct liveness *l, int from, double now) {
    int kind = l->incoming.note.kind;
    if (kind == LIVENESS_OUTCOME) {
        l->heard[from] = now;
        jobs_hear(l->engine, from, &l->incoming.outcome);
    }
    if (kind < 0 || kind >= LIVENESS_KINDS) return;
    if (kind == LIVENESS_FINISH) jobs_hear_finish(l->engine, from);
    l->heard[from] = now;
    l->said[kind * l->engine->size + from] = true;
    if (kind != LIVENESS_ABORT || l->failed) return;
    l->failed = true;
    struct liveness_note *note = &l->incoming.note;
    note->text[sizeof note->text - 1] = 0;
    error_set(&l->failure, (tessera_status)note->status, "%s", note->text);
}

/* Judges the silence of others, unless this process was away itself. */
static void judge(struct liveness *l, double now) {
    const struct engine *engine = l->engine;
    bool was_away = now - l->last_judged > engine->options.silence_seconds / 2;
    l->last_judged = now;
    for (int rank = 0; rank < engine->size; rank++) {
        if (was_away) l->heard[rank] = now;
        bool gone = l->said[LIVENESS_LAST * engine->size + rank] || rank == engine->rank;
        if (l->failed || gone || now - l->heard[rank] <= engine->options.silence_seconds) continue;
        l->failed = true;
        error_set(&l->failure, TESSERA_ERROR_IO,
                  "rank %d on %s: no sign of life for %.0f s (killed, stopped, or cut off from rank %d on %s)", rank, engine->hosts[rank],
                  now - l->heard[rank], engine->rank, engine->hosts[engine->rank]);
    }
}

bool liveness_poll(struct liveness *l, double now) {
    bool any = false;
    for (;;) {
        int came = 0;
        MPI_Status status;
        if (MPI_Test(&l->receive, &came, &status) != MPI_SUCCESS || !came) break;
        hear(l, status.MPI_SOURCE, now);
        listen(l);
        any = true;
    }
    if (now - l->last_judged > JUDGE_SECONDS) judge(l, now);
    if (now < l->next_beat || l->said[LIVENESS_LAST * l->engine->size + l->engine->rank]) return any;
    liveness_tell(l, LIVENESS_BEAT, NULL);
    l->next_beat = now + l->engine->options.heartbeat_seconds;
    return any;
}
