/* `tessera verify-study`: how often each kind of cheating is found, and honest workers are accused,
 * on the embedded model or another. Tables in Markdown. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/random.h"
#include "checkpoint/published.h"
#include "cli/command.h"
#include "cli/find_model.h"
#include "cli/study_answers.h"
#include "split/study.h"

enum { SEEDS = 8, LENGTHS = 4, FEWEST_REPLICAS = 2, PRINTED_STEPS = 28, MOST_TRIALS = 10000000 };
static const int lengths[LENGTHS] = {4, 8, 16, PROJECTIONS};
/* Answers agree up to twice the largest distance of honest ones: projections of one at that
 * distance stay below, those of one at twice the threshold above. */
#define THRESHOLD 2

enum study_option { STUDY_MODEL, STUDY_SIDE, STUDY_NO_PLAIN, STUDY_TRIALS, STUDY_OPTION_COUNT };
static const struct option study_options[STUDY_OPTION_COUNT] = {
    [STUDY_MODEL] =
        {.name = "model",
         .letter = 'm',
         .type = OPTION_TEXT,
         .placeholder = "MODEL",
         .help = "folder in diffusers' layout whose denoiser is a transformer, or OWNER/NAME on the hub (default: the embedded model)",
         .opens = true},
    [STUDY_SIDE] = {.name = "side",
                    .type = OPTION_INTEGER,
                    .placeholder = "PIXELS",
                    .help = "width and height of the pictures whose states are answered (default: the model's)",
                    .low = 16,
                    .high = 4096},
    [STUDY_NO_PLAIN] = {.name = "no-plain",
                        .type = OPTION_FLAG,
                        .help = "leave out plain C, which takes a hundred times as long as vector instructions"},
    [STUDY_TRIALS] = {.name = "trials",
                      .type = OPTION_INTEGER,
                      .placeholder = "N",
                      .help = "checked answers per entry of the tables (default: 10000)",
                      .low = 100,
                      .high = MOST_TRIALS},
};

struct tables {
    struct study_answers answers;
    double *projections; /* [STUDY_INPUTS, SEEDS, honest and cheats, PROJECTIONS] */
    int sources, trials;
    double threshold;
    struct random_generator random;
};
struct tally {
    int caught, escaped, undecided, accused; /* trials: the liar lost; won; no majority; an honest worker lost */
};

static const double *projection_of(const struct tables *t, int input, int seed, int source) {
    return t->projections + (((size_t)input * SEEDS + (size_t)seed) * (size_t)t->sources + (size_t)source) * PROJECTIONS;
}

static tessera_status project_all(struct tables *t, tessera_error *error) {
    const struct study_answers *a = &t->answers;
    const float *vectors[STUDY_MOST_PATHS + STUDY_MOST_CHEATS];
    t->sources = a->num_honest + a->num_cheats;
    t->projections = malloc((size_t)STUDY_INPUTS * SEEDS * (size_t)t->sources * PROJECTIONS * sizeof *t->projections);
    if (t->projections == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for projections");
    for (int i = 0; i < STUDY_INPUTS; i++) {
        for (int s = 0; s < t->sources; s++)
            vectors[s] = s < a->num_honest ? a->honest[s].answers[i] : a->cheats[s - a->num_honest].answers[i];
        for (int seed = 0; seed < SEEDS; seed++)
            study_project(vectors, t->sources, a->size, (uint64_t)(i * SEEDS + seed), (double *)projection_of(t, i, seed, 0));
    }
    return TESSERA_OK;
}

static int draw(struct tables *t, int below) {
    return (int)(random_word(&t->random) % (uint32_t)below);
}

/* One checked answer: `replicas` workers, the first of which is the cheat (-1: all are honest); the
 * others have kernel paths at random. */
static void try_once(struct tables *t, int cheat, int replicas, int length, struct tally *tally) {
    bool agree[STUDY_MOST_REPLICAS][STUDY_MOST_REPLICAS];
    const double *of[STUDY_MOST_REPLICAS];
    int input = draw(t, STUDY_INPUTS), seed = draw(t, SEEDS);
    unsigned losers;
    for (int r = 0; r < replicas; r++)
        of[r] = projection_of(t, input, seed, cheat >= 0 && r == 0 ? t->answers.num_honest + cheat : draw(t, t->answers.num_honest));
    for (int i = 0; i < replicas; i++)
        for (int k = i; k < replicas; k++) agree[i][k] = agree[k][i] = study_distance(of[i], of[k], length) <= t->threshold;
    bool decided = study_vote(agree, replicas, &losers);
    if (cheat >= 0) {
        tally->caught += decided && (losers & 1) != 0;
        tally->escaped += decided && (losers & 1) == 0;
        losers &= ~1u;
    }
    tally->undecided += !decided;
    tally->accused += losers != 0;
}

static struct tally try_often(struct tables *t, int cheat, int replicas, int length) {
    struct tally tally = {0};
    for (int i = 0; i < t->trials; i++) try_once(t, cheat, replicas, length, &tally);
    return tally;
}

static double percent(const struct tables *t, int count) {
    return 100.0 * count / t->trials;
}

static double nearest_distance(const struct study_answers *a, int cheat) {
    double nearest = INFINITY;
    for (int i = 0; i < STUDY_INPUTS; i++)
        for (int p = 0; p < a->num_honest; p++)
            nearest = fmin(nearest, study_exact_distance(a->honest[p].answers[i], a->cheats[cheat].answers[i], a->size));
    return nearest;
}

/* Three replicas, one of which cheats, by kind and by length of the hash. */
static void print_kinds(struct tables *t) {
    const struct study_answers *a = &t->answers;
    printf("| cheating | nearest distance | in honest distances | found, 4 projections | 8 | 16 | 64 | honest accused, 64 "
           "|\n|---|---|---|---|---|---|---|---|\n");
    for (int c = -1; c < a->num_cheats; c++) {
        double distance = c >= 0 ? nearest_distance(a, c) : a->honest_distance;
        struct tally last = {0};
        if (c < 0)
            printf("| none (the share that is accused) | %.2g | 1.0 |", distance);
        else
            printf("| %s | %.2g | %.1f |", a->cheats[c].name, distance, distance / a->honest_distance);
        for (int l = 0; l < LENGTHS; l++) {
            last = try_often(t, c, 3, lengths[l]);
            printf(" %.2f %% |", percent(t, c >= 0 ? last.caught : last.accused + last.undecided));
        }
        printf(" %.2f %% |\n", percent(t, last.accused));
    }
    printf("\n");
}

/* The weakest cheat (the first: noise of four honest distances) by the number of replicas. */
static void print_replicas(struct tables *t) {
    printf("| replicas, one with %s | found | no majority | not found | honest accused |\n|---|---|---|---|---|\n",
           t->answers.cheats[0].name);
    for (int n = FEWEST_REPLICAS; n <= STUDY_MOST_REPLICAS; n++) {
        struct tally tally = try_often(t, 0, n, PROJECTIONS);
        printf("| %d | %.2f %% | %.2f %% | %.2f %% | %.2f %% |\n", n, percent(t, tally.caught), percent(t, tally.undecided),
               percent(t, tally.escaped), percent(t, tally.accused));
    }
    printf("\n");
}

static tessera_status study_dtype(const struct study_model *study, enum dtype dtype, int trials, tessera_error *error) {
    struct tables t = {.trials = trials};
    const struct study_answers *a = &t.answers;
    random_seed(&t.random, 0);
    tessera_status status = study_answers_make(study, dtype, &t.answers, error);
    if (status == TESSERA_OK) status = project_all(&t, error);
    if (status == TESSERA_OK) {
        t.threshold = THRESHOLD * a->honest_distance;
        printf("## %s\n\nHonest kernel paths:", dtype == DTYPE_F32 ? "float32" : "bfloat16");
        for (int p = 0; p < a->num_honest; p++) printf("%s %s", p > 0 ? ";" : "", a->honest[p].name);
        printf(".\nTheir largest distance in %d states is %.3g; answers agree up to %d times that. Each entry is of %d checked answers.\n"
               "Reproducible kernels %s and on the fastest path: %d of %d answers are equal to the bit.\n\n",
               STUDY_INPUTS, a->honest_distance, THRESHOLD, trials, study->no_plain ? "with AVX2" : "in plain C", a->equal, a->compared);
        print_kinds(&t);
        print_replicas(&t);
        fflush(stdout);
    }
    free(t.projections);
    study_answers_free(&t.answers);
    return status;
}

/* What is counted, and holds for any model. */
static void print_chances(void) {
    static const double shares[] = {0.05, 0.1, 0.2, 0.33};
    static const int lies[] = {1, 2, 4, 7, 14, PRINTED_STEPS}, challenges[] = {1, 2, 3, 5, 7, 14};
    printf("## Shares of adversaries\n\nAll adversaries give the same wrong answer. Chance that it wins, and that nobody has a "
           "majority:\n\n| replicas |");
    for (size_t s = 0; s < sizeof shares / sizeof *shares; s++) printf(" %.0f %% adversaries |", 100 * shares[s]);
    printf("\n|---|---|---|---|---|\n");
    for (int n = FEWEST_REPLICAS; n <= STUDY_MOST_REPLICAS; n++) {
        printf("| %d |", n);
        for (size_t s = 0; s < sizeof shares / sizeof *shares; s++) {
            double wrong, none;
            study_collusion(n, shares[s], &wrong, &none);
            printf(" %.3g %%, %.3g %% |", 100 * wrong, 100 * none);
        }
        printf("\n");
    }
    printf("\n## Challenges\n\nChance that lies in so many of %d steps are missed by K challenges:\n\n| lies |", PRINTED_STEPS);
    for (size_t k = 0; k < sizeof challenges / sizeof *challenges; k++) printf(" K = %d |", challenges[k]);
    printf("\n|---|---|---|---|---|---|---|\n");
    for (size_t w = 0; w < sizeof lies / sizeof *lies; w++) {
        printf("| %d |", lies[w]);
        for (size_t k = 0; k < sizeof challenges / sizeof *challenges; k++)
            printf(" %.3g %% |", 100 * study_missed(PRINTED_STEPS, lies[w], challenges[k]));
        printf("\n");
    }
}

static int run_study(const char *path, struct option_value *values) {
    tessera_error error = {0};
    char *folder = NULL;
    int trials = values[STUDY_TRIALS].given ? (int)values[STUDY_TRIALS].integer : 10000;
    (void)path;
    struct study_model study = {.side = (int)values[STUDY_SIDE].integer, .no_plain = values[STUDY_NO_PLAIN].flag};
    tessera_status status = values[STUDY_MODEL].given ? find_model(values[STUDY_MODEL].text, NULL, false, &folder, &error)
                                                      : embedded_model_find(TESSERA_EMBEDDED_MODEL, &folder, &error);
    study.folder = folder;
    if (status == TESSERA_OK) status = study_dtype(&study, DTYPE_F32, trials, &error);
    if (status == TESSERA_OK) status = study_dtype(&study, DTYPE_BF16, trials, &error);
    if (status == TESSERA_OK) print_chances();
    free(folder);
    return status == TESSERA_OK ? EXIT_DONE : command_fail(&error, false);
}

const struct command verify_study_command = {
    .name = "verify-study",
    .usage = "verify-study [OPTIONS]",
    .summary = "how often cheating workers are found: tables for the embedded model or another",
    .details = "States of two pictures go through all blocks but the first and the last, by each kernel path that this processor has, and "
               "by cheats: noise, small "
               "weights,\n"
               "blocks left out, old answers, the wrong step. Replicas are compared by random projections, and the majority wins "
               "(docs/verify-study.md).\n"
               "What adversaries who collude win, and what challenges miss, is counted.\n",
    .examples = "  tessera verify-study\n  tessera verify-study --model sd3-medium --side 512 --no-plain\n",
    .options = study_options,
    .option_count = STUDY_OPTION_COUNT,
    .run = run_study,
};
