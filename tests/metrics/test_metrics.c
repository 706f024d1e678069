/* PSNR, SSIM, LPIPS, Inception's features and the FID, compared with torchmetrics, scikit-image and
 * clean-fid on small pictures (make_case.py and make_ssim.py beside this file), and networks that
 * are not what they should be. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "case_io.h"
#include "check.h"
#include "metrics/frechet.h"
#include "metrics/inception.h"
#include "metrics/lpips.h"
#include "metrics/psnr.h"
#include "metrics/ssim.h"
#include "safetensors_write.h"

#define CASE "tests/metrics/case"
enum { PAIRS = 6 };

static struct run run;

static bool close_to(const struct case_io *c, double got, double want) {
    return fabs(got - want) <= c->atol + c->rtol * fabs(want);
}

static struct image read_picture(const char *side, int i) {
    char path[96];
    struct image image = {0};
    tessera_error error = {0};
    snprintf(path, sizeof path, CASE "/%s/%04d.%s", side, i, i == 2 && side[0] == 'a' ? "jpg" : "png");
    CHECK(image_file_read(path, &image, &error) == TESSERA_OK, "%s", error.message);
    return image;
}

static void test_pairs(const struct case_io *c) {
    struct lpips *net = NULL;
    tessera_error error = {0};
    struct tensor distances = case_tensor(c, "lpips"), decibels = case_tensor(c, "psnr");
    CHECK(lpips_open(CASE "/model/alexnet.safetensors", CASE "/model/lpips.safetensors", &net, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; i < PAIRS && net != NULL; i++) {
        struct image a = read_picture("a", i), b = read_picture("b", i);
        double distance = -1;
        CHECK(lpips_distance(net, &run, &a, &b, &distance, &error) == TESSERA_OK, "%s", error.message);
        bool jpeg = i == 2; /* another libjpeg may round another way, which a distance of small pictures shows */
        CHECK(jpeg ? fabs(distance / case_element(&distances, i) - 1) < 0.05 : close_to(c, distance, case_element(&distances, i)),
              "LPIPS of pair %d: %.7f, not %.7f", i, distance, case_element(&distances, i));
        CHECK(jpeg ? fabs(psnr(&a, &b) - case_element(&decibels, i)) < 0.1 : close_to(c, psnr(&a, &b), case_element(&decibels, i)),
              "PSNR of pair %d: %.5f, not %.5f", i, psnr(&a, &b), case_element(&decibels, i));
        if (i == 0) CHECK(isinf(psnr(&a, &a)), "PSNR of a picture with itself");
        b.height /= 2;
        CHECK(lpips_distance(net, &run, &a, &b, &distance, &error) == TESSERA_ERROR_ARGUMENT, "other size");
        image_free(&a);
        image_free(&b);
    }
    struct image small = {.width = 12, .height = 12, .pixels = calloc(12 * 12, 3)};
    double distance;
    CHECK(net == NULL || lpips_distance(net, &run, &small, &small, &distance, &error) == TESSERA_ERROR_ARGUMENT, "too small");
    run.error = (tessera_error){0};
    image_free(&small);
    lpips_free(net);
}

/* Every line of ssim.tsv: two pictures and what scikit-image says of them. */
static void test_ssim(void) {
    char a_path[96], b_path[96];
    double want, got = 0;
    int pairs = 0;
    tessera_error error = {0};
    FILE *list = fopen("tests/metrics/ssim.tsv", "r");
    while (list != NULL && fscanf(list, "%95s %95s %lf", a_path, b_path, &want) == 3) {
        struct image a = {0}, b = {0};
        CHECK(image_file_read(a_path, &a, &error) == TESSERA_OK && image_file_read(b_path, &b, &error) == TESSERA_OK, "%s", error.message);
        CHECK(ssim(&a, &b, &got, &error) == TESSERA_OK && fabs(got - want) < 1e-9, "SSIM of %s and %s: %.12f, not %.12f", a_path, b_path,
              got, want);
        CHECK(ssim(&a, &a, &got, &error) == TESSERA_OK && got == 1, "SSIM of %s with itself: %.17g", a_path, got);
        b.height = a.height = SSIM_WINDOW - 1;
        CHECK(ssim(&a, &b, &got, &error) == TESSERA_ERROR_ARGUMENT, "ten rows");
        image_free(&a);
        image_free(&b);
        pairs++;
    }
    CHECK(pairs == 8, "%d pairs", pairs);
    if (list != NULL) fclose(list);
}

/* The features of a folder's pictures [PAIRS, dims], checked; the caller frees. */
static float *features_of(const struct case_io *c, const struct inception *net, const char *side, const char *name) {
    int dims = inception_dims(net);
    struct tensor want = case_tensor(c, name);
    float *all = calloc((size_t)(PAIRS * dims), sizeof *all);
    double worst = 0;
    tessera_error error = {0};
    for (int i = 0; i < PAIRS; i++) {
        struct image picture = read_picture(side, i);
        CHECK(inception_features(net, &run, &picture, all + i * dims, &error) == TESSERA_OK, "%s", error.message);
        for (int d = 0; d < dims; d++) {
            double expected = case_element(&want, i * dims + d);
            if (i == 2 && side[0] == 'a') all[i * dims + d] = (float)expected; /* the JPEG, as above */
            worst = fmax(worst, fabs((double)all[i * dims + d] - expected) / (c->atol + c->rtol * fabs(expected)));
        }
        image_free(&picture);
    }
    CHECK(worst <= 1, "features of %s: %.2f of the tolerance", side, worst);
    return all;
}

static void test_fid(const struct case_io *c) {
    struct inception *net = NULL;
    tessera_error error = {0};
    CHECK(inception_open(CASE "/model/inception.safetensors", &net, &error) == TESSERA_OK, "%s", error.message);
    if (net == NULL) return;
    struct tensor want = case_tensor(c, "fid"), tall = case_tensor(c, "features_tall");
    int dims = inception_dims(net);
    CHECK(dims == 256, "%d features", dims);
    float *a = features_of(c, net, "a", "features_a"), *b = features_of(c, net, "b", "features_b");
    double distance = 0;
    CHECK(frechet_distance(a, PAIRS, b, PAIRS, dims, &distance, &error) == TESSERA_OK, "%s", error.message);
    CHECK(close_to(c, distance, case_element(&want, 1)), "FID of the folders: %.6f, not %.6f", distance, case_element(&want, 1));
    struct image picture;
    CHECK(image_file_read(CASE "/tall.png", &picture, &error) == TESSERA_OK, "%s", error.message);
    CHECK(inception_features(net, &run, &picture, a, &error) == TESSERA_OK, "%s", error.message);
    struct tensor got = tensor_of(a, DTYPE_F32, SHAPE(1, dims));
    CHECK(case_compare(c, &got, &tall).worst <= 1, "features of a large picture: %.2f", case_compare(c, &got, &tall).worst);
    image_free(&picture);
    free(a);
    free(b);
    inception_free(net);
}

static void test_frechet(const struct case_io *c) {
    struct tensor x = case_tensor(c, "made_up_x"), y = case_tensor(c, "made_up_y"), want = case_tensor(c, "fid");
    double distance = 0;
    tessera_error error = {0};
    CHECK(frechet_distance(x.data, x.shape[0], y.data, y.shape[0], 24, &distance, &error) == TESSERA_OK, "%s", error.message);
    CHECK(close_to(c, distance, case_element(&want, 0)), "%.6f, not %.6f", distance, case_element(&want, 0));
    CHECK(frechet_distance(x.data, x.shape[0], x.data, x.shape[0], 24, &distance, &error) == TESSERA_OK && fabs(distance) < 1e-6,
          "of a set with itself: %g", distance);
    CHECK(frechet_distance(x.data, 1, y.data, 9, 24, &distance, &error) == TESSERA_ERROR_ARGUMENT, "one sample");
}

/* A file that holds another network, or this one with a layer of another shape: an error that names
 * file and tensor. */
static void test_wrong_files(void) {
    struct inception *net = NULL;
    struct lpips *lpips = NULL;
    tessera_error error = {0};
    CHECK(inception_open(CASE "/model/alexnet.safetensors", &net, &error) == TESSERA_ERROR_FORMAT &&
              strstr(error.message, "Conv2d_1a_3x3.conv.weight") != NULL,
          "%s", error.message);
    CHECK(inception_open(CASE "/nowhere.safetensors", &net, &error) == TESSERA_ERROR_IO && net == NULL, "%s", error.message);
    CHECK(lpips_open(CASE "/model/alexnet.safetensors", "assets/metrics/lpips_alex.safetensors", &lpips, &error) == TESSERA_ERROR_FORMAT &&
              strstr(error.message, "lin0.model.1.weight") != NULL,
          "%s", error.message); /* the published weights belong to the wide network */
    char path[64];
    snprintf(path, sizeof path, "/tmp/test_metrics-%d.safetensors", (int)getpid());
    float numbers[3 * 121] = {0};
    struct safetensors_entry entry = {"features.0.weight", tensor_of(numbers, DTYPE_F32, SHAPE(1, 3, 11, 10))};
    CHECK(safetensors_write(path, &entry, 1, &error) == TESSERA_OK, "%s", error.message);
    CHECK(lpips_open(path, CASE "/model/lpips.safetensors", &lpips, &error) == TESSERA_ERROR_FORMAT &&
              strstr(error.message, "[1, 3, 11, 10]") != NULL && lpips == NULL,
          "%s", error.message);
    unlink(path);
}

int main(void) {
    struct case_io c;
    tessera_error error = {0};
    CHECK(case_open(CASE, &c, &error) == TESSERA_OK, "%s", error.message);
    run = (struct run){.arena = arena_new(0, &error), .backend = cpu_backend_open(0, CPU_KERNELS_BEST, &error), .dtype = DTYPE_F32};
    CHECK(run.arena != NULL && run.backend != NULL, "%s", error.message);
    test_pairs(&c);
    test_ssim();
    test_fid(&c);
    test_frechet(&c);
    test_wrong_files();
    arena_free(run.arena);
    backend_free(run.backend);
    case_close(&c);
    return CHECK_REPORT();
}
