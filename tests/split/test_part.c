/* Split models: every family, every cut, as files and from the folder; to the bit with reproducible
 * kernels. And what parts refuse. */
#include <unistd.h>

#include "split_case.h"

static const char *const cases[] = {"sd3",        "sd35",      "flux_dev",       "flux_schnell",  "pixart_alpha",  "pixart_sigma",
                                    "hunyuandit", "unet_sd15", "unet_sdxl_tall", "unet_odd_size", "unet_no_middle"};
static char folder[] = "/tmp/tessera-part-XXXXXX";

static const struct split_part_options reproducible = {
    .kernels = TESSERA_KERNELS_REPRODUCIBLE, .dtype = DTYPE_F32, .threads = 1, .streamed = true};

static struct split_part *part_of(struct split_case *s, struct split_range range, const struct split_part_options *options) {
    struct split_part *part = NULL;
    tessera_error error = {0};
    CHECK(split_part_open_model(s->model, &range, options, &part, &error) == TESSERA_OK, "%s: %s", s->model, error.message);
    return part;
}

/* One part, from any block to any other. */
static void test_every_cut(struct split_case *s, const struct split_part_options *options, int step) {
    int n = s->t.component.num_blocks;
    for (int first = 0; first < n; first += step)
        for (int end = first + 1; end <= n; end += end + step <= n ? step : 1)
            for (int finish = 0; finish <= (end == n); finish++) {
                struct split_part *part = part_of(s, (struct split_range){first, end, finish != 0}, options);
                if (part != NULL) check_parts(s, &part, 1, 0);
                split_part_close(part);
            }
}

/* K parts as files. */
static void test_files(struct split_case *s, const struct split_part_options *options, double tolerance) {
    int n = s->t.component.num_blocks;
    tessera_error error = {0};
    for (int k = 1; k <= 4 && k <= n; k++) {
        struct split_part *parts[4] = {0};
        bool good = true;
        for (int i = 0; i < k; i++) {
            struct split_range range = {i * n / k, (i + 1) * n / k, i == k - 1};
            struct part_file file;
            char path[160];
            snprintf(path, sizeof path, "%s/%d.safetensors", folder, i);
            good &= part_file_of_model(s->model, &range, options->dtype, false, &file, &error) == TESSERA_OK &&
                    part_file_write(&file, path, &error) == TESSERA_OK;
            good = good && split_part_open(path, options, &parts[i], &error) == TESSERA_OK;
            CHECK(good, "%s", error.message);
            CHECK(good && memcmp(file.header.digest, split_part_header(parts[i])->digest, CANONICAL_HASH_BYTES) == 0,
                  "a file's digest is not the model's");
            part_file_close(&file);
            unlink(path); /* what is mapped stays */
        }
        if (good) check_parts(s, parts, k, tolerance);
        for (int i = 0; i < k; i++) split_part_close(parts[i]);
    }
}

/* The weights of a part that is open, by other kernels: as if it had been opened with them, and so
 * is the part itself afterwards. */
static void test_other_kernels(struct split_case *s, const struct split_part_options *fast) {
    struct split_part *part = part_of(s, (struct split_range){1, s->t.component.num_blocks - 1, false}, fast), *other = NULL;
    tessera_error error = {0};
    if (part == NULL) return;
    bool good = split_part_open_with(part, TESSERA_KERNELS_REPRODUCIBLE, &other, &error) == TESSERA_OK;
    CHECK(good, "%s", error.message);
    CHECK(good && strstr(split_part_specification(other), " reproducible ") != NULL, "its answers are signed as the other's");
    CHECK(good && memcmp(split_part_header(other)->digest, split_part_header(part)->digest, CANONICAL_HASH_BYTES) == 0, "another digest");
    if (good) check_parts(s, &other, 1, 0);
    split_part_close(other);
    CHECK(strstr(split_part_specification(part), " fast ") != NULL, "the part took the other's kernels");
    check_parts(s, &part, 1, 1e-5);
    split_part_close(part);
}

static void test_family(const char *name) {
    static const struct split_part_options bf16 = {.kernels = TESSERA_KERNELS_REPRODUCIBLE, .dtype = DTYPE_BF16, .threads = 2};
    static const struct split_part_options fast = {.kernels = TESSERA_KERNELS_BEST, .dtype = DTYPE_F32, .threads = 1};
    struct split_case s;
    if (split_case_open(&s, name, DTYPE_F32, CPU_KERNELS_REPRODUCIBLE)) {
        printf("%s: %d blocks\n", name, s.t.component.num_blocks);
        test_every_cut(&s, &reproducible, s.t.component.num_blocks > 20 ? 3 : 1);
        test_files(&s, &reproducible, 0);
        test_files(&s, &fast, 1e-5);
        test_other_kernels(&s, &fast);
    }
    split_case_close(&s);
    if (split_case_open(&s, name, DTYPE_BF16, CPU_KERNELS_REPRODUCIBLE)) {
        test_every_cut(&s, &bf16, 5);
        test_files(&s, &bf16, 0);
    }
    split_case_close(&s);
}

/* argv[1]: a folder, where requests to the parts of fuzz/fuzz_request.c are left, with the byte
 * that names the model before them. */
static void leave_requests(const char *to) {
    static const struct {
        const char *name;
        struct split_range range;
    } parts[] = {{"sd3", {1, 3, false}}, {"pixart_sigma", {1, 4, true}}, {"unet_sd15", {5, 12, false}}};
    for (int i = 0; i < 6; i++) {
        struct split_case s;
        char path[512];
        size_t size;
        if (split_case_open(&s, parts[i / 2].name, DTYPE_F32, CPU_KERNELS_REPRODUCIBLE)) {
            struct denoiser_state state = denoiser_embed(s.t.component.denoiser, &s.t.run, &s.inputs.in, BOTH);
            state = own_blocks(&s, 0, parts[i / 2].range.first, state);
            struct denoiser_state sent = split_request_state(s.t.component.denoiser, &parts[i / 2].range, &state);
            uint8_t *bytes = pack_state(&s, &sent, JOB, i % 2 != 0 ? ~0u : 0, &size);
            snprintf(path, sizeof path, "%s/%s%s", to, parts[i / 2].name, i % 2 != 0 ? "_digest" : "");
            FILE *stream = fopen(path, "wb");
            CHECK(stream != NULL && fputc(i / 2, stream) == i / 2 && fwrite(bytes, 1, size, stream) == size && fclose(stream) == 0,
                  "cannot write %s", path);
            free(bytes);
        }
        split_case_close(&s);
    }
}

int main(int argc, char **argv) {
    if (argc > 1) {
        leave_requests(argv[1]);
        return CHECK_REPORT();
    }
    if (mkdtemp(folder) == NULL) return 1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) test_family(cases[i]);
    rmdir(folder);
    return CHECK_REPORT();
}
