/* What a component holds in memory, by the system's count: nothing when it is opened, one part's weights when one is loaded, nothing when they
 * are dropped; of weights that are lent from the file and of weights that are converted. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "check.h"
#include "checkpoint/random_component.h"
#include "models/registry.h"

enum { BLOCKS = 3 };
#define MIB ((size_t)1 << 20)

/* SD3's transformer, 512 wide: some 8 million weights a block. */
static const char config[] = "{\"_class_name\": \"SD3Transformer2DModel\", \"attention_head_dim\": 64, \"caption_projection_dim\": 512,\n"
                             " \"in_channels\": 16, \"joint_attention_dim\": 64, \"num_attention_heads\": 8, \"num_layers\": 3,\n"
                             " \"out_channels\": 16, \"patch_size\": 2, \"pooled_projection_dim\": 64, \"pos_embed_max_size\": 16,\n"
                             " \"sample_size\": 32}\n";

static size_t resident(void) {
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file != NULL && fscanf(file, "%*d %ld", &pages) != 1) pages = 0;
    if (file != NULL) fclose(file);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

static bool make_model(const char *folder, tessera_error *error) {
    struct tensor_list list = {0};
    struct random_component component = {
        .folder = folder, .name = "transformer", .stem = "diffusion_pytorch_model", .list = &list, .seed = 1, .max_shard_bytes = SIZE_MAX};
    char *path = file_join(folder, "config.json");
    FILE *file = fopen(path, "w");
    bool good = file != NULL && fputs(config, file) >= 0 && fclose(file) == 0;
    good = good && tensor_list_read(&list, folder, error) == TESSERA_OK && random_component_write(&component, error) == TESSERA_OK;
    tensor_list_clear(&list);
    free(path);
    return good;
}

/* Reads a byte of each page of block `index`'s weights, where they lie in the file. */
static unsigned touch(const struct component *c, int index) {
    char prefix[64];
    unsigned sum = 0;
    snprintf(prefix, sizeof prefix, "transformer_blocks.%d.", index);
    for (int i = 0; i < weights_count(c->weights); i++) {
        const struct safetensors_entry *entry = weights_at(c->weights, i);
        if (strncmp(entry->name, prefix, strlen(prefix)) != 0) continue;
        for (size_t at = 0; at < tensor_bytes(&entry->tensor); at += 1024) sum += ((const uint8_t *)entry->tensor.data)[at];
    }
    return sum;
}

/* Grown from `before` by `bytes`, up to a twentieth of a block's? */
static void check_grown(const char *what, size_t before, size_t bytes, size_t block) {
    size_t now = resident();
    double grown = (double)now - (double)before;
    CHECK(grown > (double)bytes - 0.05 * (double)block && grown < (double)bytes + 0.05 * (double)block, "%s: %.1f MiB more, not %.1f", what,
          grown / (double)MIB, (double)bytes / (double)MIB);
}

static void test_type(const char *folder, enum dtype dtype) {
    struct component c;
    tessera_error error = {0};
    struct component_source source = {.folder = folder};
    size_t start = resident();
    CHECK(component_open(&source, dtype, &c, &error) == TESSERA_OK, "%s", error.message);
    if (error.status != TESSERA_OK) return;
    size_t block = c.parts[1].bytes;
    CHECK(block > 8 * MIB && c.weight_bytes > BLOCKS * block / 2, "%zu bytes a block", block);
    check_grown("opened", start, 0, block);
    for (int round = 0; round < 2; round++) {
        size_t before = resident();
        for (int i = 0; i < BLOCKS; i++) {
            CHECK(component_load_block(&c, i, &error) == TESSERA_OK, "%s", error.message);
            if (dtype == DTYPE_BF16) CHECK(touch(&c, i) != 0, "weights are numbers");
        }
        size_t all = c.parts[1].bytes + c.parts[2].bytes + c.parts[3].bytes;
        check_grown("loaded", before, all, block);
        component_drop_block(&c, 1);
        check_grown("one dropped", before, all - c.parts[2].bytes, block);
        component_drop_block(&c, 0);
        component_drop_block(&c, 2);
        component_drop_block(&c, 2); /* again: nothing happens */
        check_grown("all dropped", before, 0, block);
    }
    component_close(&c);
}

int main(void) {
    char folder[] = "/tmp/tessera-test-XXXXXX";
    tessera_error error = {0};
    CHECK(mkdtemp(folder) != NULL, "no temporary folder");
    bool made = make_model(folder, &error);
    CHECK(made, "%s", error.message);
    if (made) {
        test_type(folder, DTYPE_BF16); /* lent */
        test_type(folder, DTYPE_F32);  /* converted */
    }
    static const char *const files[] = {"config.json", "diffusion_pytorch_model.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = file_join(folder, files[i]);
        unlink(path);
        free(path);
    }
    rmdir(folder);
    return CHECK_REPORT();
}
