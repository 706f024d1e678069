/* Measures settings of quality_settings.h that RESULTS.csv does not have yet, and adds a line of each.
 *
 *     mpirun -n N quality_grid RESULTS.csv WORK [SETTINGS [PICTURES]]        N: 1, 2, 4 or 8 patches; one process without mpirun
 *
 * SETTINGS: at most so many (0, the default: all). A run that was stopped goes on where it ended: a
 * line is written when its setting is whole. WORK is a folder for the exact pictures, made once for
 * all runs, and for PNG files of the first six pictures of the settings that docs/quality.md shows.
 * Each number of patches is a run of its own; several may go at once with a results file each. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "quality_settings.h"
#include "small_pictures.h"
#include "tessera_files.h"

enum { PATH = 512, SHOWN = 6, CHANNELS = 3 };

struct grid {
    const char *results, *work;
    int count; /* of pictures */
    tessera_world *world;
    bool leads;
    struct quality_pictures exact; /* where it leads */
    char exact_of[PATH];           /* the file that `exact` is */
};

/* ---- the results ---- */

/* Cuts a last line without an end, which a stop left: its setting is measured again. */
static tessera_status drop_cut_line(const char *path, tessera_error *error) {
    long whole = 0, at = 0;
    FILE *file = fopen(path, "r");
    if (file == NULL) return TESSERA_OK;
    for (int c; (c = fgetc(file)) != EOF;)
        if (at++, c == '\n') whole = at;
    fclose(file);
    return whole == at || truncate(path, whole) == 0 ? TESSERA_OK : error_set_errno(error, "%s cannot be written", path);
}

static bool has_line(const char *path, const char *key) {
    char line[QUALITY_LINE];
    bool found = false;
    FILE *file = fopen(path, "r");
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) found = strncmp(line, key, strlen(key)) == 0;
    if (file != NULL) fclose(file);
    return found;
}

/* Adds a line (to a header, where there is none yet) in one write. */
static tessera_status add_line(const char *path, const char *line, tessera_error *error) {
    struct stat about;
    bool is_new = stat(path, &about) != 0 || about.st_size == 0;
    FILE *file = fopen(path, "a");
    if (file == NULL) return error_set_errno(error, "%s cannot be written", path);
    int written = is_new ? fprintf(file, "%s\n%s", QUALITY_HEADER, line) : fprintf(file, "%s", line);
    return fclose(file) == 0 && written > 0 ? TESSERA_OK : error_set_errno(error, "%s cannot be written", path);
}

/* ---- the exact pictures ---- */

static tessera_status read_exact(struct grid *g, const struct quality_setting *s, const char *path, tessera_error *error) {
    struct quality_pictures *e = &g->exact;
    FILE *file = fopen(path, "rb");
    if (file == NULL) return error_set_errno(error, "%s cannot be read", path);
    *e = (struct quality_pictures){.width = s->width, .height = s->height};
    e->count = CHANNELS * (size_t)s->width * (size_t)s->height;
    bool whole = true;
    for (int i = 0; i < g->count && whole; i++)
        whole = (e->pixels[i] = malloc(e->count * sizeof(float))) != NULL && fread(e->pixels[i], sizeof(float), e->count, file) == e->count;
    fclose(file);
    return whole ? TESSERA_OK : error_set(error, TESSERA_ERROR_FORMAT, "%s is cut off: remove it", path);
}

static tessera_status write_exact(const struct quality_pictures *pictures, int count, const char *path, tessera_error *error) {
    char made[PATH + 16];
    snprintf(made, sizeof made, "%s.%ld", path, (long)getpid());
    FILE *file = fopen(made, "wb");
    if (file == NULL) return error_set_errno(error, "%s cannot be written", made);
    bool whole = true;
    for (int i = 0; i < count && whole; i++) whole = fwrite(pictures->pixels[i], sizeof(float), pictures->count, file) == pictures->count;
    whole = fclose(file) == 0 && whole;
    if (whole && rename(made, path) == 0) return TESSERA_OK;
    unlink(made);
    return error_set_errno(error, "%s cannot be written", path);
}

/* On the leading rank. */
static tessera_status need_exact(struct grid *g, const struct quality_setting *s, tessera_error *error) {
    char path[PATH];
    snprintf(path, sizeof path, "%s/exact-%s-%d-%dx%d-%d.f32", g->work, s->scheduler, s->steps, s->width, s->height, g->count);
    if (strcmp(path, g->exact_of) == 0) return TESSERA_OK;
    quality_free(&g->exact);
    g->exact_of[0] = 0;
    if (access(path, F_OK) != 0) {
        struct quality_way way = quality_exact_way(s);
        TRY(quality_make(QUALITY_MODEL, &way, g->count, &g->exact, error));
        TRY(write_exact(&g->exact, g->count, path, error));
    } else {
        TRY(read_exact(g, s, path, error));
    }
    snprintf(g->exact_of, sizeof g->exact_of, "%s", path);
    return TESSERA_OK;
}

/* ---- pictures to look at ---- */

static tessera_status show(const struct grid *g, const char *name, const struct quality_pictures *pictures, tessera_error *error) {
    char path[PATH];
    uint8_t *bytes = malloc(pictures->count);
    tessera_status status = bytes != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    for (int i = 0; i < SHOWN && i < g->count && status == TESSERA_OK; i++) {
        for (size_t j = 0; j < pictures->count; j++) bytes[j] = (uint8_t)lrintf(255 * fminf(fmaxf(pictures->pixels[i][j], 0), 1));
        snprintf(path, sizeof path, "%s/%s-%d.png", g->work, name, i);
        status = tessera_png_write(path, NULL, bytes, pictures->width, pictures->height, NULL, 0, error);
    }
    free(bytes);
    return status;
}

static tessera_status show_setting(const struct grid *g, const struct quality_setting *s, const struct quality_pictures *made,
                                   tessera_error *error) {
    char name[PATH];
    if (s->steps != 20 || strcmp(s->scheduler, "DDIMScheduler") != 0) return TESSERA_OK;
    snprintf(name, sizeof name, "exact-%d", s->height);
    TRY(show(g, name, &g->exact, error));
    snprintf(name, sizeof name, "%d-%s-%s-%d-%s", s->ranks, s->strategy, s->sync_mode, s->warmup, s->option);
    return show(g, name, made, error);
}

/* ---- a setting ---- */

static tessera_status measure(struct grid *g, const struct quality_setting *s, tessera_error *error) {
    struct quality_pictures made = {0};
    struct quality_figures figures;
    char small[SMALL_PATH] = "", line[QUALITY_LINE];
    tessera_status status = g->leads ? need_exact(g, s, error) : TESSERA_OK;
    if (status == TESSERA_OK && strcmp(s->strategy, "weights") == 0)
        status = small_denoiser(QUALITY_MODEL "/unet/diffusion_pytorch_model.safetensors", s->option, small, error);
    status = tessera_world_share(g->world, status, NULL, 0, error);
    struct quality_way way = quality_setting_way(s, g->world, small[0] != 0 ? small : NULL);
    if (status == TESSERA_OK) status = quality_make(QUALITY_MODEL, &way, g->count, &made, error);
    if (status == TESSERA_OK && g->leads) {
        status = quality_compare(&g->exact, &made, g->count, &figures, error);
        if (status == TESSERA_OK) {
            quality_line(s, &figures, line);
            printf("%.*s\n", (int)strcspn(line, " "), line);
            fflush(stdout);
            status = show_setting(g, s, &made, error);
        }
        if (status == TESSERA_OK) status = add_line(g->results, line, error);
    }
    if (small[0] != 0) unlink(small);
    quality_free(&made);
    return tessera_world_share(g->world, status, NULL, 0, error);
}

static tessera_status measure_all(struct grid *g, int most, tessera_error *error) {
    static struct quality_setting settings[QUALITY_SETTINGS_MOST];
    int ranks = tessera_world_size(g->world), count = quality_settings(ranks, settings), done = 0;
    for (int i = 0; i < count && (most == 0 || done < most); i++) {
        char key[QUALITY_KEY];
        quality_setting_key(&settings[i], key);
        bool there = g->leads && has_line(g->results, key);
        TRY(tessera_world_share(g->world, TESSERA_OK, &there, sizeof there, error));
        if (there) continue;
        TRY(measure(g, &settings[i], error));
        done++;
    }
    return TESSERA_OK;
}

static tessera_status run(struct grid *g, int most, tessera_error *error) {
    int ranks = tessera_world_size(g->world);
    g->leads = tessera_world_rank(g->world) == 0;
    if (ranks != 1 && ranks != 2 && ranks != 4 && ranks != 8)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%d ranks: settings are of 1, 2, 4 or 8", ranks);
    tessera_status status = TESSERA_OK;
    if (g->leads && access(g->work, F_OK) != 0 && mkdir(g->work, 0777) != 0) status = error_set_errno(error, "%s cannot be made", g->work);
    if (g->leads && status == TESSERA_OK) status = drop_cut_line(g->results, error);
    TRY(tessera_world_share(g->world, status, NULL, 0, error));
    return measure_all(g, most, error);
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    if (argc < 3) {
        fprintf(stderr, "usage: quality_grid RESULTS.csv WORK [SETTINGS [PICTURES]]\n");
        return 2;
    }
    struct grid g = {.results = argv[1], .work = argv[2], .count = argc > 4 ? atoi(argv[4]) : QUALITY_MOST};
    if (g.count < 1 || g.count > QUALITY_MOST) {
        fprintf(stderr, "quality_grid: %s pictures: from 1 to %d\n", argv[4], QUALITY_MOST);
        return 2;
    }
    g.world = tessera_world_open(&error);
    tessera_status status = g.world != NULL ? run(&g, argc > 3 ? atoi(argv[3]) : 0, &error) : error.status;
    if (status != TESSERA_OK && g.world != NULL) tessera_world_abort(g.world, &error);
    if (status == TESSERA_OK) status = tessera_world_finish(g.world, &error);
    if (status != TESSERA_OK) fprintf(stderr, "quality_grid: %s\n", error.message);
    quality_free(&g.exact);
    tessera_world_free(g.world);
    return status == TESSERA_OK ? 0 : 1;
}
