/* Tasks: the answers that one has and can have, and how it ends: it is over, or an answer that it
 * relied on is void. See client_parts.h. */
#include <stdlib.h>
#include <string.h>

#include "split/client_parts.h"

/* ---- answers ---- */

bool client_tried(const struct client *c, const struct client_task *task, int worker, bool operators) {
    for (int i = 0; i < CLIENT_MOST_ATTEMPTS; i++) {
        const struct client_attempt *a = &task->attempts[i];
        if (a->call == NULL) continue;
        if (a->worker == worker || (operators && strcmp(c->workers[a->worker].operator_name, c->workers[worker].operator_name) == 0))
            return true;
    }
    return false;
}

int client_attempts(const struct client_task *task, bool good) {
    int count = 0;
    for (int i = 0; i < CLIENT_MOST_ATTEMPTS; i++) count += task->attempts[i].call != NULL && (!good || task->attempts[i].good);
    return count;
}

int client_possible_answers(const struct client *c, const struct client_task *task) {
    const struct client_part *part = &c->parts[task->part];
    int count = client_attempts(task, false);
    for (int i = part->first_worker; i < part->first_worker + part->count; i++)
        count += client_worker_usable(&c->workers[i]) && !client_tried(c, task, i, false);
    return count;
}

/* ---- ends ---- */

void client_end_attempt(struct client *c, struct client_attempt *a) {
    if (a->call == NULL) return;
    if (!a->good) c->workers[a->worker].under_way--;
    remote_call_end(a->call);
    *a = (struct client_attempt){0};
}

void client_free_task(struct client *c, struct client_task *task) {
    for (int i = 0; i < CLIENT_MOST_ATTEMPTS; i++) client_end_attempt(c, &task->attempts[i]);
    for (int p = 0; task->won != NULL && p < c->num_parts; p++) remote_call_end(task->won[p]);
    free(task->won);
    free(task->memory);
    free(task);
}

static void drop_tasks(struct client *c, int picture) {
    for (struct client_task **at = &c->tasks; *at != NULL;) {
        struct client_task *task = *at;
        if (task->unit.picture != picture) {
            at = &task->next;
            continue;
        }
        *at = task->next;
        client_free_task(c, task);
    }
}

/* The first step in which a picture goes on with an unverified answer of the worker; job.steps: none. */
static int first_trusting(const struct client *c, int picture, int worker) {
    for (struct workers_unit u = {.picture = picture}; u.step < c->job.steps; u.step++)
        for (u.prediction = 0; u.prediction < c->job.predictions; u.prediction++)
            for (int p = 0; p < c->num_parts; p++) {
                const struct client_answer *a = client_answer_at(c, u, p);
                if (a->there && a->worker == worker && !a->verified) return u.step;
            }
    return c->job.steps;
}

static void void_from(struct client *c, int picture, int step) {
    for (struct workers_unit u = {.picture = picture, .step = step}; u.step < c->job.steps; u.step++)
        for (u.prediction = 0; u.prediction < c->job.predictions; u.prediction++)
            for (int p = 0; p < c->num_parts; p++) *client_answer_at(c, u, p) = (struct client_answer){0};
    if (step < c->rewinds[picture]) c->rewinds[picture] = step;
    drop_tasks(c, picture);
}

/* What it answered to tasks under way is no vote. */
static void withdraw_answers(struct client *c, int worker) {
    for (struct client_task *task = c->tasks; task != NULL; task = task->next)
        for (int i = 0; i < CLIENT_MOST_ATTEMPTS; i++)
            if (task->attempts[i].worker == worker) client_end_attempt(c, &task->attempts[i]);
}

void client_void(struct client *c, int worker) {
    withdraw_answers(c, worker);
    for (int i = 0; i < c->job.pictures && c->handle.rewinds; i++) {
        int step = first_trusting(c, i, worker);
        if (step == c->job.steps) continue;
        client_say(c, "picture %d goes back to step %d: since then it relied on unverified answers of %s", i + 1, step + 1,
                   c->workers[worker].url);
        void_from(c, i, step);
    }
}
