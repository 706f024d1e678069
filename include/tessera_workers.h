/* Other people's machines: some of a denoiser's blocks are computed by workers (`tessera worker`),
 * and what they answer is checked.
 *
 *     tessera_workers_options where = TESSERA_WORKERS_OPTIONS;
 *     where.file = "WORKERS.json";
 *     where.verify = "challenge=3";
 *     tessera_workers *workers = tessera_workers_open(&where, &error);
 *     tessera_model_options options = TESSERA_MODEL_OPTIONS;
 *     options.workers = workers;
 *     tessera_model *model = tessera_model_open("sd3-medium", &options, &error);   and so on, as in tessera.h
 *     tessera_model_free(model);
 *     tessera_workers_free(workers);
 *
 * This process keeps the text encoders, the blocks before and behind the workers', the sampler and
 * the autoencoder, and loads nothing else; the weights of the workers' blocks need not be there
 * (tessera split --client-folder). docs/strangers.md is the guide, docs/threat-model.md says what
 * remains. Structs carry their size, as in tessera.h. */
#ifndef TESSERA_WORKERS_H
#define TESSERA_WORKERS_H

#include "tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tessera_workers tessera_workers;

typedef struct tessera_workers_options {
    size_t struct_size;
    const char *file;           /* WORKERS.json (docs/strangers.md); NULL: `workers` alone */
    const char *const *workers; /* [num_workers] "PART=URL#PIN,URL#PIN": replicas of part 1, 2, ... */
    int num_workers;
    const char *token_file; /* whose first token goes to those of `workers`; NULL: none does */
    /* "exact=N,fraction=P", "replicas=N,fraction=P", "challenge=K" or "challenge=K,by=replica";
     * NULL or "none": answers are taken as they come. */
    const char *verify;
    double timeout;        /* seconds that one request may take, its wait at the worker included; 0: 300 */
    const char *receipts;  /* folder for what convicts a worker; NULL: the current one */
    tessera_notice notice; /* told of workers that are lost, dropped or convicted; may be NULL */
    void *notice_user;
} tessera_workers_options;
#define TESSERA_WORKERS_OPTIONS                                                                                                            \
    { .struct_size = sizeof(tessera_workers_options) }

/* ARGUMENT saying what is possible where `verify` of the options is none of it. Asks nobody. */
tessera_status tessera_workers_check_verify(const char *verify, tessera_error *error);
/* Asks each worker which part it has. NULL and `error` where a file or option is wrong, or no
 * worker of some part can be reached. */
tessera_workers *tessera_workers_open(const tessera_workers_options *options, tessera_error *error);
/* After the models that use it; NULL is allowed. */
void tessera_workers_free(tessera_workers *workers);

/* What a worker has done so far. Texts live as long as `workers`. */
typedef struct tessera_worker_report {
    size_t struct_size;
    const char *url, *operator_name;
    int part;                            /* from 1 on */
    const char *dropped;                 /* why nothing is sent to it any more; NULL: it is in use */
    const char *receipt;                 /* the file that convicts it; NULL: there is none */
    uint64_t requests, failures, checks; /* answered; not answered; answers that were checked and right */
    uint64_t bytes_sent, bytes_received;
    double seconds; /* from each request to its answer, added up */
} tessera_worker_report;
#define TESSERA_WORKER_REPORT                                                                                                              \
    { .struct_size = sizeof(tessera_worker_report) }

/* Fills the report on worker `index`, from 0; false behind the last. */
bool tessera_workers_get(const tessera_workers *workers, int index, tessera_worker_report *report);
/* The chance that a worker goes unnoticed which was wrong in one step of a picture of so many, by
 * the verification that was chosen: 1 without any, and where a part had too few workers for it. And
 * one that is wrong in every step. */
void tessera_workers_miss(const tessera_workers *workers, int steps, double *one_step, double *every_step);

#ifdef __cplusplus
}
#endif
#endif
