/* Which files are chosen, and what a hostile or unusual list of them does. */
#include "hub/hub_cache.h"
#include "hub/hub_files.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "check.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"

static const char index_text[] =
    "{\"_class_name\": \"StableDiffusionXLPipeline\", \"_diffusers_version\": \"0.30\", \"force_zeros\": true,"
    " \"unet\": [\"diffusers\", \"UNet2DConditionModel\"], \"text_encoder\": [\"transformers\", \"CLIPTextModel\"],"
    " \"safety_checker\": [\"stable_diffusion\", \"StableDiffusionSafetyChecker\"],"
    " \"tokenizer\": [\"transformers\", \"CLIPTokenizer\"], \"feature_extractor\": [null, null]}";

/* A file with the choice that is expected of it. */
struct choice {
    const char *path;
    bool wanted;
};

static tessera_status parse(const char *text, struct hub_listing *listing, tessera_error *error) {
    return hub_listing_parse("list", text, strlen(text), listing, error);
}

/* A list of `count` paths as the hub writes it; the caller frees. */
static char *list_of(const struct choice *files, int count) {
    char *text = NULL;
    size_t length;
    FILE *stream = open_memstream(&text, &length);
    fprintf(stream, "{\"sha\": \"" COMMIT "\", \"siblings\": [");
    for (int i = 0; i < count; i++) fprintf(stream, "%s{\"rfilename\": \"%s\"}", i > 0 ? "," : "", files[i].path);
    fprintf(stream, "]}");
    fclose(stream);
    return text;
}

static tessera_status select_files(const struct choice *files, int count, const char *variant, bool compare, tessera_error *error) {
    struct hub_listing listing;
    struct json *index = NULL;
    char *text = list_of(files, count);
    *error = (tessera_error){0};
    CHECK(parse(text, &listing, error) == TESSERA_OK && listing.count == count, "%s", error->message);
    CHECK(json_parse("index", index_text, strlen(index_text), &index, error) == TESSERA_OK, "%s", error->message);
    tessera_status status = hub_listing_select(&listing, index, variant, error);
    for (int i = 0; compare && i < count; i++)
        CHECK(listing.files[i].wanted == files[i].wanted, "%s: wanted %d", files[i].path, listing.files[i].wanted);
    json_free(index);
    hub_listing_free(&listing);
    free(text);
    return status;
}

static void test_choice(void) {
    static const struct choice files[] = {
        {"model_index.json", true},
        {"generation_defaults.json", true},
        {"README.md", false},
        {"sd_xl_base_1.0.safetensors", false},
        {"pipeline.py", false},
        {"unet/config.json", true},
        {"unet/diffusion_pytorch_model-00001-of-00002.safetensors", true},
        {"unet/diffusion_pytorch_model-00002-of-00002.safetensors", true},
        {"unet/diffusion_pytorch_model.safetensors.index.json", true},
        {"unet/diffusion_pytorch_model.safetensors.index.fp16.json", false},
        {"unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors", false},
        {"unet/diffusion_pytorch_model.fp16.safetensors", false},
        {"unet/diffusion_pytorch_model-1-of-2.safetensors", false},
        {"unet/model.onnx", false},
        {"unet/notes.txt", false},
        {"text_encoder/config.json", true},
        {"text_encoder/model.safetensors", true},
        {"text_encoder/pytorch_model.bin", false},
        {"text_encoder/flax_model.msgpack", false},
        {"text_encoder_2/model.safetensors", false},
        {"safety_checker/config.json", true},
        {"safety_checker/pytorch_model.bin", false},
        {"tokenizer/vocab.json", true},
        {"tokenizer/special/extra.txt", true},
        {"tokenizer_2/vocab.json", false},
        {"feature_extractor/preprocessor_config.json", false},
    };
    tessera_error error;
    CHECK(select_files(files, (int)(sizeof files / sizeof *files), NULL, true, &error) == TESSERA_OK, "%s", error.message);
}

/* Without plain safetensors: a variant, fp16 first; then PyTorch's files. What is asked for comes
 * first, where it is. */
static void test_kinds(void) {
    static const struct choice variants[] = {{"unet/config.json", true},
                                             {"unet/diffusion_pytorch_model.bf16.safetensors", false},
                                             {"unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors", true},
                                             {"unet/diffusion_pytorch_model-00002-of-00002.fp16.safetensors", true},
                                             {"unet/diffusion_pytorch_model.safetensors.index.fp16.json", true},
                                             {"unet/diffusion_pytorch_model.bin", false}};
    static const struct choice asked[] = {{"unet/diffusion_pytorch_model.safetensors", false},
                                          {"unet/diffusion_pytorch_model.fp16.safetensors", true},
                                          {"unet/diffusion_pytorch_model.non_ema.safetensors", false},
                                          {"text_encoder/model.safetensors", true}};
    static const struct choice pickled[] = {{"text_encoder/config.json", true},
                                            {"text_encoder/pytorch_model-00001-of-00001.bin", true},
                                            {"text_encoder/pytorch_model.bin.index.json", true},
                                            {"text_encoder/pytorch_model.fp16.bin", false}};
    static const struct choice unreadable[] = {{"unet/config.json", true}, {"unet/diffusion_flax_model.msgpack", false}};
    tessera_error error;
    CHECK(select_files(variants, 6, NULL, true, &error) == TESSERA_OK, "%s", error.message);
    CHECK(select_files(asked, 4, "fp16", true, &error) == TESSERA_OK, "%s", error.message);
    CHECK(select_files(pickled, 4, NULL, true, &error) == TESSERA_OK, "%s", error.message);
    CHECK(select_files(unreadable, 2, NULL, false, &error) == TESSERA_ERROR_UNSUPPORTED && strstr(error.message, "msgpack") != NULL, "%s",
          error.message);
}

static void test_lists(void) {
    static const char *const bad[] = {
        "",
        "[]",
        "{\"siblings\": []}",
        "{\"sha\": \"main\", \"siblings\": []}",
        "{\"sha\": \"" COMMIT "\"}",
        "{\"sha\": \"" COMMIT "\", \"siblings\": {\"rfilename\": 3}}",
        "{\"sha\": \"" COMMIT "\", \"siblings\": [{\"rfilename\": \"/etc/x\"}]}",
        "{\"sha\": \"" COMMIT "\", \"siblings\": [{\"rfilename\": \"a/../../x\"}]}",
        "{\"sha\": \"" COMMIT "\", \"siblings\": [{\"rfilename\": \"a//x\"}]}",
        "{\"sha\": \"" COMMIT "\", \"siblings\": [{\"rfilename\": \"a\\nx\"}]}",
        "{\"sha\": \"" COMMIT "\", \"siblings\": [{\"rfilename\": \"ok\"}, {\"size\": 3}]}",
    };
    struct hub_listing listing;
    tessera_error error;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(parse(bad[i], &listing, &error) == TESSERA_ERROR_FORMAT, "%s", bad[i]);
        hub_listing_free(&listing);
    }
    static const char good[] = "{\"sha\": \"" COMMIT "\", \"siblings\": [{\"rfilename\": \"a\", \"size\": 5, \"blobId\": \"" COMMIT "\"},"
                               "{\"rfilename\": \"b\", \"size\": 130, \"lfs\": {\"size\": 5000000000, \"sha256\": \"../../x\"}}]}";
    CHECK(parse(good, &listing, &error) == TESSERA_OK, "%s", error.message);
    const struct hub_file *a = hub_listing_find(&listing, "a"), *b = hub_listing_find(&listing, "b");
    CHECK(a != NULL && a->size == 5 && strcmp(a->digest, COMMIT) == 0, "a small file");
    CHECK(b != NULL && b->size == 5000000000 && b->digest[0] == 0, "a large file with a checksum that is none");
    hub_listing_free(&listing);
}

/* A reference in the cache that holds no commit is none. */
static void test_references(void) {
    char root[] = "/tmp/test_hub_files_XXXXXX", path[256], commit[HUB_COMMIT_BYTES] = "";
    static const char good[] = "0123456789abcdef0123456789abcdef01234567";
    struct hub_cache cache;
    tessera_error error = {0};
    CHECK(mkdtemp(root) != NULL && hub_cache_open(root, "a/b", &cache, &error) == TESSERA_OK, "%s", error.message);
    snprintf(path, sizeof path, "%s/refs", cache.repository);
    CHECK(mkdir(cache.repository, 0777) == 0 && mkdir(path, 0777) == 0, "no folder for references");
    snprintf(path, sizeof path, "%s/refs/main", cache.repository);
    const char *const contents[] = {good, "../../../../somewhere", "", "0123", "0123456789abcdef0123456789abcdef0123456",
                                    "0123456789abcdef0123456789abcdef012345678"};
    for (int i = 0; i < 6; i++) {
        FILE *file = fopen(path, "w");
        CHECK(file != NULL && fprintf(file, "%s\n", contents[i]) > 0 && fclose(file) == 0, "%s", path);
        bool known = hub_cache_commit(&cache, "main", commit);
        CHECK(known == (i == 0) && strcmp(commit, good) == 0, "\"%s\": %s", contents[i], commit);
    }
    hub_cache_close(&cache);
}

int main(void) {
    test_references();
    test_choice();
    test_kinds();
    test_lists();
    return CHECK_REPORT();
}
