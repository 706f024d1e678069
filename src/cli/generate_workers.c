/* `tessera generate` with other people's machines: which ones, and what they did. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "cli/session.h"

static tessera_status check_verify(struct session *s) {
    tessera_error why = {0};
    tessera_status status = tessera_workers_check_verify(s->values[GENERATE_VERIFY].text, &why);
    return status == TESSERA_OK ? status : error_set(&s->error, status, "--%s", why.message);
}

static tessera_status check_options(struct session *s) {
    static const int needs[] = {GENERATE_VERIFY, GENERATE_WORKER_TIMEOUT, GENERATE_RECEIPTS};
    const struct option_value *v = s->values;
    bool named = v[GENERATE_WORKERS].text != NULL || v[GENERATE_WORKER].count > 0;
    s->usage = true;
    for (size_t i = 0; i < sizeof needs / sizeof *needs && !named; i++)
        if (v[needs[i]].given)
            return error_set(&s->error, TESSERA_ERROR_ARGUMENT,
                             "--%s: is about workers, but none are named: give --workers FILE or --worker",
                             generate_options[needs[i]].name);
    if (v[GENERATE_WORKER_TOKEN_FILE].given && v[GENERATE_WORKER].count == 0)
        return error_set(&s->error, TESSERA_ERROR_ARGUMENT, "--worker-token-file %s: is for workers of --worker, but there are none",
                         v[GENERATE_WORKER_TOKEN_FILE].text);
    if (named && tessera_world_size(s->world) > 1)
        return error_set(&s->error, TESSERA_ERROR_ARGUMENT, "--workers: one process uses them by itself: start it without mpirun");
    TRY(check_verify(s));
    s->usage = false;
    return TESSERA_OK;
}

tessera_status session_open_workers(struct session *s) {
    const struct option_value *v = s->values;
    TRY(check_options(s));
    if (v[GENERATE_WORKERS].text == NULL && v[GENERATE_WORKER].count == 0) return TESSERA_OK;
    tessera_workers_options options = TESSERA_WORKERS_OPTIONS;
    options.file = v[GENERATE_WORKERS].text;
    options.workers = v[GENERATE_WORKER].texts;
    options.num_workers = v[GENERATE_WORKER].count;
    options.token_file = v[GENERATE_WORKER_TOKEN_FILE].text;
    options.verify = v[GENERATE_VERIFY].text;
    options.timeout = v[GENERATE_WORKER_TIMEOUT].number;
    options.receipts = v[GENERATE_RECEIPTS].text;
    s->notices.progress = &s->progress;
    options.notice = notice_print;
    options.notice_user = &s->notices;
    s->workers = tessera_workers_open(&options, &s->error);
    return s->workers != NULL ? TESSERA_OK : s->error.status;
}

void session_print_workers(const struct session *s) {
    tessera_worker_report w = TESSERA_WORKER_REPORT;
    for (int i = 0; s->workers != NULL && tessera_workers_get(s->workers, i, &w); i++) {
        fprintf(stderr, "part %d, %s: %llu requests in %.2f s, sent %.2f MB, received %.2f MB, %llu checked", w.part, w.url,
                (unsigned long long)w.requests, w.seconds, (double)w.bytes_sent / 1e6, (double)w.bytes_received / 1e6,
                (unsigned long long)w.checks);
        if (w.failures > 0) fprintf(stderr, ", %llu failed", (unsigned long long)w.failures);
        if (w.dropped != NULL) fprintf(stderr, "; left out: %s", w.dropped);
        if (w.receipt != NULL) fprintf(stderr, "; receipt %s", w.receipt);
        fputc('\n', stderr);
    }
    if (s->workers == NULL) return;
    double one, every;
    tessera_workers_miss(s->workers, s->request.num_inference_steps, &one, &every);
    if (one == 1 && every == 1)
        fprintf(stderr, "workers: answers were not checked, or not those of every part (--verify)\n");
    else
        fprintf(stderr,
                "workers: a wrong answer in one step of %d would have gone unnoticed in %.3g %% of pictures, in every step in %.3g %%\n",
                s->request.num_inference_steps, 100 * one, 100 * every);
}

void session_add_workers(const struct session *s, cJSON *report) {
    tessera_worker_report w = TESSERA_WORKER_REPORT;
    if (s->workers == NULL) return;
    cJSON *list = cJSON_AddArrayToObject(report, "workers");
    for (int i = 0; tessera_workers_get(s->workers, i, &w); i++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddItemToArray(list, item);
        cJSON_AddNumberToObject(item, "part", w.part);
        cJSON_AddStringToObject(item, "url", w.url);
        cJSON_AddStringToObject(item, "operator", w.operator_name);
        const struct {
            const char *name;
            double value;
        } numbers[] = {{"requests", (double)w.requests},
                       {"failures", (double)w.failures},
                       {"checks", (double)w.checks},
                       {"bytes_sent", (double)w.bytes_sent},
                       {"bytes_received", (double)w.bytes_received},
                       {"seconds", w.seconds}};
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++) cJSON_AddNumberToObject(item, numbers[k].name, numbers[k].value);
        if (w.dropped != NULL) cJSON_AddStringToObject(item, "dropped", w.dropped);
        if (w.receipt != NULL) cJSON_AddStringToObject(item, "receipt", w.receipt);
    }
    double one, every;
    tessera_workers_miss(s->workers, s->request.num_inference_steps, &one, &every);
    cJSON_AddNumberToObject(report, "miss_one_step", one);
    cJSON_AddNumberToObject(report, "miss_every_step", every);
}
