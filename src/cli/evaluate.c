/* `tessera evaluate`: how far two folders of pictures are apart.
 *
 *     --input-root0 A --input-root1 B     PSNR, SSIM and LPIPS of the pairs, in the order of their names, and the FID of the folders:
 *                                         DistriFusion's scripts/compute_metrics.py
 *     --ref A --sample B                  the FID alone, of any numbers of pictures: xDiT's benchmark/fid/compute_fid.py
 *
 * Means over pairs, as torchmetrics takes them. Networks read a picture at a time, in float32. Left
 * out: KID, pictures below subfolders. */
#include <cjson/cJSON.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/published.h"
#include "cli/bar.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "image/resample.h"
#include "metrics/frechet.h"
#include "metrics/inception.h"
#include "metrics/lpips.h"
#include "metrics/psnr.h"
#include "metrics/ssim.h"

/* As pytorch-fid and torchvision publish them. */
#define INCEPTION_PTH "pt_inception-2015-12-05-6726825d.pth"
#define ALEXNET_PTH "alexnet-owt-7be5be79.pth"

enum evaluate_option {
    EVALUATE_ROOT0,
    EVALUATE_ROOT1,
    EVALUATE_REF,
    EVALUATE_SAMPLE,
    EVALUATE_IS_GT,
    EVALUATE_METRICS,
    EVALUATE_INCEPTION,
    EVALUATE_ALEXNET,
    EVALUATE_LPIPS,
    EVALUATE_THREADS,
    EVALUATE_JSON,
    EVALUATE_BATCH_SIZE,
    EVALUATE_NUM_WORKERS,
    EVALUATE_DEVICE,
    EVALUATE_OPTION_COUNT
};

static const struct option evaluate_options[EVALUATE_OPTION_COUNT] = {
    [EVALUATE_ROOT0] = {.name = "input-root0", .type = OPTION_TEXT, .placeholder = "FOLDER", .help = "pictures to compare"},
    [EVALUATE_ROOT1] = {.name = "input-root1",
                        .type = OPTION_TEXT,
                        .placeholder = "FOLDER",
                        .help = "and those that they are compared with"},
    [EVALUATE_REF] =
        {.name = "ref", .aliases = {"ref-path"}, .type = OPTION_TEXT, .placeholder = "FOLDER", .help = "true pictures: the FID alone"},
    [EVALUATE_SAMPLE] =
        {.name = "sample", .aliases = {"sample-path"}, .type = OPTION_TEXT, .placeholder = "FOLDER", .help = "and the ones that were made"},
    [EVALUATE_IS_GT] = {.name = "is-gt",
                        .type = OPTION_FLAG,
                        .help = "input-root0 has true pictures of any size: scaled to their pairs' for PSNR, SSIM and LPIPS"},
    [EVALUATE_METRICS] = {.name = "metrics", .type = OPTION_TEXTS, .placeholder = "psnr|ssim|lpips|fid", .help = "which of them (default all)"},
    [EVALUATE_INCEPTION] = {.name = "inception",
                            .type = OPTION_TEXT,
                            .placeholder = "FILE",
                            .help = "the FID's network (default inception-2015-12-05.safetensors or " INCEPTION_PTH ")"},
    [EVALUATE_ALEXNET] = {.name = "alexnet",
                          .type = OPTION_TEXT,
                          .placeholder = "FILE",
                          .help = "LPIPS' network (default alexnet.safetensors or " ALEXNET_PTH ")"},
    [EVALUATE_LPIPS] = {.name = "lpips",
                        .type = OPTION_TEXT,
                        .placeholder = "FILE",
                        .help = "its weights of layers (default: those of version 0.1)"},
    [EVALUATE_THREADS] =
        {.name = "threads", .type = OPTION_INTEGER, .placeholder = "N", .help = "0: as many as the machine grants", .low = 0, .high = 1024},
    [EVALUATE_JSON] = {.name = "json", .type = OPTION_FLAG, .help = "one JSON object on standard output"},
    [EVALUATE_BATCH_SIZE] = {.name = "batch-size", .type = OPTION_TEXT, .ignored = "networks read a picture at a time"},
    [EVALUATE_NUM_WORKERS] = {.name = "num-workers", .type = OPTION_TEXT, .ignored = "a picture is read when its turn comes"},
    [EVALUATE_DEVICE] = {.name = "device", .type = OPTION_TEXT, .ignored = "metrics are computed on the CPU"},
};

/* The pictures of a folder, by name. */
struct folder {
    const char *path;
    char **names;
    int count;
};

struct evaluation {
    const struct option_value *values;
    bool usage; /* the error so far is one of the command line */
    bool wants_psnr, wants_ssim, wants_lpips, wants_fid;
    struct folder folders[2];
    struct run run;
    struct inception *inception;
    struct lpips *lpips;
    double psnr, ssim, lpips_mean, fid;
};

/* ---- folders ---- */

static bool is_picture(const char *name) {
    const char *dot = strrchr(name, '.');
    return name[0] != '.' && dot != NULL && (strcasecmp(dot, ".png") == 0 || strcasecmp(dot, ".jpg") == 0 || strcasecmp(dot, ".jpeg") == 0);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static tessera_status add_name(struct folder *folder, const char *name, int *capacity, tessera_error *error) {
    if (folder->count == *capacity) {
        int more = *capacity == 0 ? 256 : 2 * *capacity;
        char **names = realloc(folder->names, (size_t)more * sizeof *names);
        if (names == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for file names");
        folder->names = names;
        *capacity = more;
    }
    folder->names[folder->count] = file_join(folder->path, name);
    if (folder->names[folder->count] == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for file names");
    folder->count++;
    return TESSERA_OK;
}

static tessera_status read_folder(struct folder *folder, tessera_error *error) {
    DIR *stream = opendir(folder->path);
    if (stream == NULL) return error_set_errno(error, "the folder %s cannot be read", folder->path);
    tessera_status status = TESSERA_OK;
    int capacity = 0;
    for (struct dirent *entry; status == TESSERA_OK && (entry = readdir(stream)) != NULL;)
        if (is_picture(entry->d_name)) status = add_name(folder, entry->d_name, &capacity, error);
    closedir(stream);
    TRY(status);
    if (folder->count == 0) return error_set(error, TESSERA_ERROR_IO, "%s has no pictures (.png, .jpg, .jpeg)", folder->path);
    qsort(folder->names, (size_t)folder->count, sizeof *folder->names, by_name);
    return TESSERA_OK;
}

static void free_folder(struct folder *folder) {
    for (int i = 0; i < folder->count; i++) free(folder->names[i]);
    free(folder->names);
}

/* ---- the command line ---- */

static tessera_status choose_folders(struct evaluation *e, tessera_error *error) {
    const struct option_value *v = e->values;
    bool pairs = v[EVALUATE_ROOT0].given && v[EVALUATE_ROOT1].given, sets = v[EVALUATE_REF].given && v[EVALUATE_SAMPLE].given;
    if (pairs == sets) return error_set(error, TESSERA_ERROR_ARGUMENT, "give --input-root0 and --input-root1, or --ref and --sample");
    e->folders[0].path = v[pairs ? EVALUATE_ROOT0 : EVALUATE_REF].text;
    e->folders[1].path = v[pairs ? EVALUATE_ROOT1 : EVALUATE_SAMPLE].text;
    e->wants_psnr = e->wants_ssim = e->wants_lpips = pairs;
    e->wants_fid = true;
    return TESSERA_OK;
}

static bool wants_pairs(const struct evaluation *e) {
    return e->wants_psnr || e->wants_ssim || e->wants_lpips;
}

static tessera_status choose_metrics(struct evaluation *e, tessera_error *error) {
    const struct option_value *wanted = &e->values[EVALUATE_METRICS];
    if (!wanted->given) return TESSERA_OK;
    bool can_pair = e->wants_psnr;
    e->wants_psnr = e->wants_ssim = e->wants_lpips = e->wants_fid = false;
    for (int i = 0; i < wanted->count; i++) {
        bool *known = strcmp(wanted->texts[i], "psnr") == 0    ? &e->wants_psnr
                      : strcmp(wanted->texts[i], "ssim") == 0  ? &e->wants_ssim
                      : strcmp(wanted->texts[i], "lpips") == 0 ? &e->wants_lpips
                      : strcmp(wanted->texts[i], "fid") == 0   ? &e->wants_fid
                                                               : NULL;
        if (known == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "--metrics %s: there are psnr, ssim, lpips and fid", wanted->texts[i]);
        *known = true;
    }
    if (can_pair || !wants_pairs(e)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "PSNR, SSIM and LPIPS compare pairs: give --input-root0 and --input-root1");
}

static tessera_status check_counts(const struct evaluation *e, tessera_error *error) {
    const struct folder *a = &e->folders[0], *b = &e->folders[1];
    if (wants_pairs(e) && a->count != b->count)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "%s has %d pictures and %s has %d: PSNR, SSIM and LPIPS compare pairs (--metrics fid does not)", a->path, a->count,
                         b->path, b->count);
    const struct folder *few = a->count < 2 ? a : b;
    if (e->wants_fid && few->count < 2)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%s has one picture: a FID needs two at least on each side", few->path);
    return TESSERA_OK;
}

/* A network's file: the one that was named, or the one that is here. */
static const char *network_file(const struct option_value *given, const char *own, const char *published) {
    if (given->given) return given->text;
    return !file_exists(own) && file_exists(published) ? published : own;
}

/* A network's file that is not there gets a word on where to get it. */
static tessera_status need_file(const char *path, const char *option, const char *metric, tessera_error *error) {
    if (file_exists(path)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_IO,
                     "there is no %s: get it as docs/evaluation.md says, name it with --%s, or leave %s out with --metrics", path, option,
                     metric);
}

static tessera_status open_lpips(struct evaluation *e, tessera_error *error) {
    const char *alexnet = network_file(&e->values[EVALUATE_ALEXNET], "alexnet.safetensors", ALEXNET_PTH);
    char *linear = NULL;
    TRY(need_file(alexnet, "alexnet", "lpips", error));
    if (e->values[EVALUATE_LPIPS].given) return lpips_open(alexnet, e->values[EVALUATE_LPIPS].text, &e->lpips, error);
    TRY(data_find("assets/metrics/lpips_alex.safetensors", &linear, error));
    tessera_status status = lpips_open(alexnet, linear, &e->lpips, error);
    free(linear);
    return status;
}

static tessera_status open_networks(struct evaluation *e, tessera_error *error) {
    e->run.dtype = DTYPE_F32;
    if (!e->wants_lpips && !e->wants_fid) return TESSERA_OK;
    const char *inception = network_file(&e->values[EVALUATE_INCEPTION], "inception-2015-12-05.safetensors", INCEPTION_PTH);
    if ((e->run.arena = arena_new(0, error)) == NULL) return TESSERA_ERROR_MEMORY;
    if ((e->run.backend = cpu_backend_open(e->values[EVALUATE_THREADS].integer, CPU_KERNELS_BEST, error)) == NULL) return error->status;
    if (e->wants_lpips) TRY(open_lpips(e, error));
    if (!e->wants_fid) return TESSERA_OK;
    TRY(need_file(inception, "inception", "fid", error));
    return inception_open(inception, &e->inception, error);
}

/* ---- pairs ---- */

/* true pictures at the size of their pairs, through floats, rounded at the end, as torchvision does. */
static tessera_status scale_to(struct image *image, const struct image *like, tessera_error *error) {
    struct image out;
    size_t values = image_values(like);
    TRY(image_new(like->width, like->height, &out, error));
    float *floats = malloc(values * sizeof *floats);
    tessera_status status = floats != NULL ? resample_floats(image, like->width, like->height, RESAMPLE_BILINEAR, floats, error)
                                           : error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    for (size_t i = 0; i < values && status == TESSERA_OK; i++) out.pixels[i] = (uint8_t)lrintf(fminf(fmaxf(floats[i], 0), 255));
    free(floats);
    image_free(image);
    *image = out;
    return status;
}

static tessera_status compare(struct evaluation *e, int i, tessera_error *error) {
    struct image a = {0}, b = {0};
    double distance = 0, similarity = 0;
    tessera_status status = image_file_read(e->folders[0].names[i], &a, error);
    if (status == TESSERA_OK) status = image_file_read(e->folders[1].names[i], &b, error);
    bool differ = a.width != b.width || a.height != b.height;
    if (status == TESSERA_OK && differ)
        status = e->values[EVALUATE_IS_GT].flag
                     ? scale_to(&a, &b, error)
                     : error_set(error, TESSERA_ERROR_ARGUMENT, "%s is %dx%d but %s is %dx%d; --is-gt scales the first to the second",
                                 e->folders[0].names[i], a.width, a.height, e->folders[1].names[i], b.width, b.height);
    if (status == TESSERA_OK && e->wants_psnr) e->psnr += psnr(&a, &b) / e->folders[0].count;
    if (status == TESSERA_OK && e->wants_ssim) status = ssim(&a, &b, &similarity, error);
    if (status == TESSERA_OK && e->wants_lpips) status = lpips_distance(e->lpips, &e->run, &a, &b, &distance, error);
    e->ssim += similarity / e->folders[0].count;
    e->lpips_mean += distance / e->folders[0].count;
    image_free(&a);
    image_free(&b);
    return status;
}

static tessera_status stopped(struct bar *bar, tessera_error *error) {
    bar_clear(bar);
    return error_set(error, TESSERA_ERROR_CANCELLED, "stopped");
}

static tessera_status compare_all(struct evaluation *e, tessera_error *error) {
    struct bar bar = bar_start("pairs", BAR_COUNT, command_common(&evaluate_command, e->values, COMMON_QUIET));
    tessera_status status = TESSERA_OK;
    for (int i = 0; i < e->folders[0].count && status == TESSERA_OK; i++) {
        if (progress_signal() != 0) return stopped(&bar, error);
        status = compare(e, i, error);
        bar_show(&bar, i + 1, e->folders[0].count);
    }
    bar_clear(&bar);
    return status;
}

/* ---- the FID ---- */

static tessera_status add_features(struct evaluation *e, const char *path, float *features, tessera_error *error) {
    struct image picture;
    TRY(image_file_read(path, &picture, error));
    tessera_status status = inception_features(e->inception, &e->run, &picture, features, error);
    image_free(&picture);
    return status;
}

static tessera_status measure_fid(struct evaluation *e, tessera_error *error) {
    int dims = inception_dims(e->inception), counts[2] = {e->folders[0].count, e->folders[1].count};
    float *features = malloc((size_t)(counts[0] + counts[1]) * (size_t)dims * sizeof *features);
    if (features == NULL)
        return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the features of %d pictures", counts[0] + counts[1]);
    struct bar bar = bar_start("features", BAR_COUNT, command_common(&evaluate_command, e->values, COMMON_QUIET));
    tessera_status status = TESSERA_OK;
    for (int i = 0; i < counts[0] + counts[1] && status == TESSERA_OK; i++) {
        const char *path = i < counts[0] ? e->folders[0].names[i] : e->folders[1].names[i - counts[0]];
        status = progress_signal() != 0 ? stopped(&bar, error) : add_features(e, path, features + (size_t)i * (size_t)dims, error);
        bar_show(&bar, i + 1, counts[0] + counts[1]);
    }
    bar_clear(&bar);
    if (status == TESSERA_OK)
        status = frechet_distance(features, counts[0], features + (size_t)counts[0] * (size_t)dims, counts[1], dims, &e->fid, error);
    free(features);
    return status;
}

/* ---- the result ---- */

static tessera_status evaluate(struct evaluation *e, tessera_error *error) {
    e->usage = true;
    TRY(choose_folders(e, error));
    TRY(choose_metrics(e, error));
    e->usage = false;
    for (int i = 0; i < 2; i++) TRY(read_folder(&e->folders[i], error));
    TRY(check_counts(e, error));
    TRY(open_networks(e, error));
    if (wants_pairs(e)) TRY(compare_all(e, error));
    return e->wants_fid ? measure_fid(e, error) : TESSERA_OK;
}

/* JSON has no infinity, which is the PSNR of the same pictures: null. */
static void add_number(cJSON *object, const char *name, bool there, double value) {
    if (there && isfinite(value)) cJSON_AddNumberToObject(object, name, value);
    if (there && !isfinite(value)) cJSON_AddNullToObject(object, name);
}

static void print_result(const struct evaluation *e) {
    if (e->values[EVALUATE_JSON].flag) {
        cJSON *root = cJSON_CreateObject();
        cJSON_AddNumberToObject(root, "pictures0", e->folders[0].count);
        cJSON_AddNumberToObject(root, "pictures1", e->folders[1].count);
        add_number(root, "psnr", e->wants_psnr, e->psnr);
        add_number(root, "ssim", e->wants_ssim, e->ssim);
        add_number(root, "lpips", e->wants_lpips, e->lpips_mean);
        add_number(root, "fid", e->wants_fid, e->fid);
        char *text = cJSON_Print(root);
        if (text != NULL) puts(text);
        cJSON_free(text);
        cJSON_Delete(root);
        return;
    }
    if (e->wants_psnr) printf("PSNR: %.6f\n", e->psnr);
    if (e->wants_ssim) printf("SSIM: %.6f\n", e->ssim);
    if (e->wants_lpips) printf("LPIPS: %.6f\n", e->lpips_mean);
    if (e->wants_fid) printf("FID: %.6f\n", e->fid);
}

static int run_evaluate(const char *path, struct option_value *values) {
    (void)path;
    struct evaluation e = {.values = values};
    tessera_error error = {0};
    options_print_ignored(evaluate_options, EVALUATE_OPTION_COUNT, values);
    progress_catch_signals();
    tessera_status status = evaluate(&e, &error);
    if (status == TESSERA_OK) print_result(&e);
    for (int i = 0; i < 2; i++) free_folder(&e.folders[i]);
    inception_free(e.inception);
    lpips_free(e.lpips);
    if (e.run.backend != NULL) backend_free(e.run.backend);
    if (e.run.arena != NULL) arena_free(e.run.arena);
    if (status == TESSERA_ERROR_CANCELLED) return command_stopped(true, "nothing was measured");
    return status == TESSERA_OK ? EXIT_DONE : command_fail(&error, e.usage);
}

const struct command evaluate_command = {
    .name = "evaluate",
    .usage = "evaluate --input-root0 FOLDER --input-root1 FOLDER [OPTIONS]",
    .summary = "PSNR, SSIM, LPIPS and FID of two folders of pictures",
    .details = "PSNR, SSIM and LPIPS compare pairs, in the order of their names; the FID compares the folders. --ref and --sample ask for the "
               "FID alone.\n"
               "LPIPS and the FID need a network each, which docs/evaluation.md says how to get.\n",
    .examples = "  tessera evaluate --input-root0 one-rank/ --input-root1 displaced/ --metrics psnr\n"
                "  tessera evaluate --input-root0 coco/images --input-root1 results/coco --is-gt\n"
                "  tessera evaluate --ref references/ --sample sample_images/ --inception inception-2015-12-05.safetensors\n",
    .options = evaluate_options,
    .option_count = EVALUATE_OPTION_COUNT,
    .run = run_evaluate,
};
