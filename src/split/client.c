/* The client's side of a denoising: units through the parts, each to one worker or another
 * (pipelines/workers.h).
 *
 *     send --> task: part 0, 1, ... --> take
 *                    each part: `wanted` attempts at different workers
 *                    failed, timed out, or slow: another one;  all there: compared, the winner's answer goes on
 *
 * Workers that are idle take the next task, the fastest first. A worker that took four times as
 * long as others usually do gets company. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "split/client_parts.h"

enum { ALIGNMENT = 64 };
#define SLOW_TIMES 4.0
#define SLOW_SECONDS 1.0
#define WAIT_SECONDS 0.2
enum { PAUSE_MICROSECONDS = 10000 };

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a request to a worker");
}

/* ---- tasks ---- */

/* The tensors of a state, empty ones left out. */
static int list_fields(struct denoiser_state *state, struct tensor *out[4 + DENOISER_MAX_SKIPS]) {
    struct tensor *const fields[] = {&state->picture, &state->text, &state->text_mask, &state->cond};
    int count = 0;
    for (int f = 0; f < 4; f++)
        if (fields[f]->ndim > 0 && fields[f]->data != NULL) out[count++] = fields[f];
    for (int i = 0; i < state->num_skips; i++) out[count++] = &state->skips[i];
    return count;
}

static size_t aligned(size_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Copies what the state holds into memory of the task, on the host. */
static tessera_status keep_state(struct client *c, struct client_task *task, const struct denoiser_state *state, tessera_error *error) {
    struct tensor *fields[4 + DENOISER_MAX_SKIPS];
    size_t bytes = 0;
    task->state = *state;
    int count = list_fields(&task->state, fields);
    for (int i = 0; i < count; i++) bytes += aligned(tensor_bytes(fields[i]));
    task->memory = aligned_alloc(ALIGNMENT, bytes > 0 ? bytes : ALIGNMENT);
    if (task->memory == NULL) return out_of_memory(error);
    char *to = task->memory;
    for (int i = 0; i < count; i++) {
        size_t length = tensor_bytes(fields[i]);
        const void *from = run_map(c->job.run, fields[i], MAP_READ);
        if (from != NULL) memcpy(to, from, length);
        run_unmap(c->job.run, fields[i], (void *)(uintptr_t)from, MAP_READ);
        fields[i]->data = to;
        to += aligned(length);
    }
    return run_status(c->job.run, error);
}

static void reach_part(struct client *c, struct client_task *task) {
    task->wanted = task->part < c->num_parts && verification_draws(&c->verification) ? c->verification.count : 1;
    task->since = clock_seconds();
}

static tessera_status send_unit(tessera_workers *handle, struct workers_unit unit, const struct denoiser_state *state,
                                tessera_error *error) {
    struct client *c = client_of(handle);
    if (!c->prepared) TRY(client_prepare(c, state, error));
    c->prepared = true;
    struct client_task *task = calloc(1, sizeof *task), **end = &c->tasks;
    if (task == NULL) return out_of_memory(error);
    task->unit = unit;
    task->won = calloc((size_t)c->num_parts, sizeof(struct remote_call *));
    tessera_status status = task->won != NULL ? keep_state(c, task, state, error) : out_of_memory(error);
    if (status != TESSERA_OK) {
        client_free_task(c, task);
        return status;
    }
    reach_part(c, task);
    while (*end != NULL) end = &(*end)->next;
    *end = task;
    return TESSERA_OK;
}

/* ---- choosing workers ---- */

/* The worker of the task's part that would be done first; -1: all are busy. Where answers are
 * compared, of an operator of its own if there is one. */
static int choose_worker(const struct client *c, const struct client_task *task, int most_under_way) {
    const struct client_part *part = &c->parts[task->part];
    double now = clock_seconds();
    for (int operators = 1; operators >= 0; operators--) {
        int best = -1;
        double least = 0;
        for (int i = part->first_worker; i < part->first_worker + part->count; i++) {
            const struct client_worker *w = &c->workers[i];
            double cost = (w->under_way + 1) * (w->usual > 0 ? w->usual : 1e-3);
            if (!client_worker_usable(w) || w->retry_at > now || w->under_way >= most_under_way || client_tried(c, task, i, operators))
                continue;
            if (best < 0 || cost < least) best = i, least = cost;
        }
        if (best >= 0) return best;
    }
    return -1;
}

static tessera_status start_attempt(struct client *c, struct client_task *task, int worker, tessera_error *error) {
    int place = 0;
    while (place < CLIENT_MOST_ATTEMPTS && task->attempts[place].call != NULL) place++;
    if (place == CLIENT_MOST_ATTEMPTS) return TESSERA_OK;
    struct remote_input input = client_input(c, task->unit, task->part, worker, &task->state);
    TRY(remote_run(c->workers[worker].remote, &input, task, &task->attempts[place].call, error));
    task->attempts[place].worker = worker;
    c->workers[worker].under_way++;
    return TESSERA_OK;
}

/* Is an attempt so slow that another worker, which is idle, should try? */
static bool is_slow(const struct client *c, const struct client_task *task) {
    const struct client_part *part = &c->parts[task->part];
    double usual = 0;
    for (int i = part->first_worker; i < part->first_worker + part->count; i++)
        if (c->workers[i].usual > 0 && (usual == 0 || c->workers[i].usual < usual)) usual = c->workers[i].usual;
    return usual > 0 && clock_seconds() - task->since > SLOW_TIMES * usual + SLOW_SECONDS;
}

/* ---- answers ---- */

/* The task goes on with an attempt's answer. */
static void accept_answer(struct client *c, struct client_task *task, int winner, bool verified) {
    struct client_attempt *won = &task->attempts[winner];
    const struct remote_result *result = remote_call_result(won->call);
    struct client_answer *answer = client_answer_at(c, task->unit, task->part);
    *answer = (struct client_answer){.there = true, .verified = verified, .worker = won->worker, .reply = result->reply.signed_fields};
    memcpy(answer->signature, result->reply.signature, sizeof answer->signature);
    if (verified) c->workers[won->worker].checks++;
    task->won[task->part] = won->call;
    *won = (struct client_attempt){0};
    for (int i = 0; i < CLIENT_MOST_ATTEMPTS; i++) client_end_attempt(c, &task->attempts[i]); /* before the state that they are of changes */
    split_answer_merge(c->job.denoiser, &c->parts[task->part].range, &task->state, &result->answer);
    task->part++;
    reach_part(c, task);
}

/* All answers that are wanted are there. */
static tessera_status settle(struct client *c, struct client_task *task, tessera_error *error) {
    int winner = -1, liars[CLIENT_MOST_ATTEMPTS], count = 0;
    unsigned losers = 0;
    bool verified = client_attempts(task, true) > 1;
    TRY(client_compare(c, task, &winner, &losers, error));
    if (winner < 0) return TESSERA_OK;
    for (int i = 0; i < CLIENT_MOST_ATTEMPTS; i++) {
        const struct client_attempt *a = &task->attempts[i];
        if (((losers >> i) & 1) == 0) {
            if (verified && a->good && i != winner) c->workers[a->worker].checks++;
            continue;
        }
        const struct wire_reply *reply = &remote_call_result(a->call)->reply;
        struct client_answer lie = {.there = true, .worker = a->worker, .reply = reply->signed_fields};
        memcpy(lie.signature, reply->signature, sizeof lie.signature);
        client_convict(c, a->worker, task->attempts[winner].worker, task->unit, task->part, &task->state, &lie);
        liars[count++] = a->worker;
    }
    accept_answer(c, task, winner, verified);
    for (int i = 0; i < count; i++) client_void(c, liars[i]); /* the task itself may go */
    return TESSERA_OK;
}

static tessera_status take_call(struct client *c, struct remote_call *call, tessera_error *error) {
    struct client_task *task = remote_call_user(call);
    int i = 0;
    while (task->attempts[i].call != call) i++;
    struct client_attempt *a = &task->attempts[i];
    int worker = a->worker;
    c->workers[worker].under_way--;
    if (!client_take_result(c, worker, call)) {
        bool lied = remote_call_result(call)->outcome == REMOTE_WRONG;
        remote_call_end(call);
        *a = (struct client_attempt){0};
        if (lied) client_void(c, worker);
        return TESSERA_OK;
    }
    a->good = true;
    return client_attempts(task, true) >= task->wanted ? settle(c, task, error) : TESSERA_OK;
}

/* ---- one round ---- */

static tessera_status dispatch_task(struct client *c, struct client_task *task, bool *settled, tessera_error *error) {
    if (task->part == c->num_parts) return TESSERA_OK;
    int possible = client_possible_answers(c, task), under_way = client_attempts(task, false);
    if (possible == 0) return client_check_part(c, task->part, error);
    if (task->wanted > possible) {
        if (!c->parts[task->part].told_few)
            client_say(c, "part %d: %d workers are left, fewer than are to be compared", task->part + 1, possible);
        c->parts[task->part].told_few = true;
        task->wanted = possible;
        if (task->wanted == 1) c->parts[task->part].unchecked = true;
        if (client_attempts(task, true) >= task->wanted) {
            *settled = true; /* tasks may be gone after that */
            return settle(c, task, error);
        }
    }
    for (; under_way < task->wanted; under_way++) {
        int worker = choose_worker(c, task, CLIENT_MOST_UNDER_WAY);
        if (worker < 0) return TESSERA_OK;
        TRY(start_attempt(c, task, worker, error));
        if (under_way == 0) task->since = clock_seconds();
    }
    int idle = under_way == task->wanted && is_slow(c, task) ? choose_worker(c, task, 1) : -1;
    return idle >= 0 ? start_attempt(c, task, idle, error) : TESSERA_OK;
}

static tessera_status dispatch(struct client *c, tessera_error *error) {
    for (struct client_task *task = c->tasks; task != NULL;) {
        bool settled = false;
        TRY(dispatch_task(c, task, &settled, error));
        task = settled ? c->tasks : task->next;
    }
    return TESSERA_OK;
}

static bool nobody_works(const struct client *c) {
    for (int i = 0; i < c->num_workers; i++)
        if (c->workers[i].under_way > 0) return false;
    return true;
}

/* ---- pipelines/workers.h ---- */

/* A task that is back leaves the list. */
static struct client_task *task_back(struct client *c) {
    for (struct client_task **at = &c->tasks; *at != NULL; at = &(*at)->next)
        if ((*at)->part == c->num_parts) {
            struct client_task *task = *at;
            *at = task->next;
            return task;
        }
    return NULL;
}

/* An event that is there already. */
static bool next_event(struct client *c, struct workers_unit *unit, struct denoiser_state *state, enum workers_event *event) {
    for (int i = 0; i < c->job.pictures; i++)
        if (c->rewinds[i] < c->job.steps) {
            *unit = (struct workers_unit){.picture = i, .step = c->rewinds[i]};
            *event = WORKERS_REWIND;
            c->rewinds[i] = c->job.steps;
            return true;
        }
    c->given = task_back(c);
    if (c->given == NULL) return false;
    *unit = c->given->unit;
    *state = c->given->state;
    *event = WORKERS_STATE;
    return true;
}

static tessera_status take(tessera_workers *handle, struct workers_unit *unit, struct denoiser_state *state, enum workers_event *event,
                           tessera_error *error) {
    struct client *c = client_of(handle);
    struct remote_call *call;
    *event = WORKERS_NOTHING;
    if (c->given != NULL) client_free_task(c, c->given);
    c->given = NULL;
    for (double until = clock_seconds() + WAIT_SECONDS;;) {
        while ((call = remotes_next(c->remotes)) != NULL) TRY(take_call(c, call, error));
        TRY(dispatch(c, error));
        double left = until - clock_seconds();
        if (next_event(c, unit, state, event) || c->tasks == NULL || left <= 0) return TESSERA_OK;
        TRY(remotes_wait(c->remotes, left, error));
        if (nobody_works(c)) usleep(PAUSE_MICROSECONDS); /* all are to be asked later */
    }
}

static int draw(tessera_workers *handle, int picture, int *out) {
    struct client *c = client_of(handle);
    (void)picture;
    return c->verification.kind == VERIFY_CHALLENGE ? verification_choose(c->verification.count, c->job.steps, out) : 0;
}

static tessera_status check(tessera_workers *handle, struct workers_unit unit, const struct denoiser_state *state, tessera_error *error) {
    return client_check_unit(client_of(handle), unit, state, error);
}

static tessera_status begin(tessera_workers *handle, const struct workers_job *job, tessera_error *error) {
    struct client *c = client_of(handle);
    size_t pictures = (size_t)job->pictures, predictions = pictures * (size_t)job->predictions * (size_t)c->num_parts;
    c->job = *job;
    c->prepared = false;
    c->nonces = calloc(pictures, sizeof *c->nonces);
    c->constants = calloc(predictions, sizeof *c->constants);
    c->answers = calloc(predictions * (size_t)job->steps, sizeof *c->answers);
    c->rewinds = calloc(pictures, sizeof *c->rewinds);
    if (c->nonces == NULL || c->constants == NULL || c->answers == NULL || c->rewinds == NULL) return out_of_memory(error);
    for (size_t i = 0; i < pictures; i++) c->rewinds[i] = job->steps;
    for (int i = 0; i < c->num_workers; i++) c->workers[i].gone = false, c->workers[i].failures_in_row = 0, c->workers[i].retry_at = 0;
    TRY(identity_random(c->nonces, pictures * sizeof *c->nonces, error));
    return client_describe_workers(c, false, error);
}

static void end(tessera_workers *handle) {
    struct client *c = client_of(handle);
    if (c->given != NULL) client_free_task(c, c->given);
    c->given = NULL;
    while (c->tasks != NULL) {
        struct client_task *next = c->tasks->next;
        client_free_task(c, c->tasks);
        c->tasks = next;
    }
    free(c->nonces);
    free(c->constants);
    free(c->answers);
    free(c->rewinds);
    c->nonces = NULL, c->constants = NULL, c->answers = NULL, c->rewinds = NULL;
}

const struct workers_calls client_calls = {.begin = begin, .send = send_unit, .take = take, .draw = draw, .check = check, .end = end};
