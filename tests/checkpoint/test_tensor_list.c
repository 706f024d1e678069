/* Published models have the sizes that are published, as the models' own descriptions give them. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/file.h"
#include "check.h"
#include "checkpoint/published.h"
#include "checkpoint/tensor_list.h"

/* Parameters of the published weights (as diffusers and transformers count them), buffers left out. */
static const struct {
    const char *class_name, *component;
    long long parameters;
    int tensors; /* of the published file */
} published[] = {
    {"sd15", "unet", 859520964, 686},
    {"sd15", "vae", 83653863, 248},
    {"sd15", "text_encoder", 123060480, 196},
    {"sd21", "unet", 865910724, 686},
    {"sd21", "text_encoder", 340387840, 372},
    {"sdxl", "unet", 2567463684, 1680},
    {"sdxl", "text_encoder_2", 694659840, 517},
    {"sd3-medium", "transformer", 2028328000, 683},
    {"sd3-medium", "vae", 83819683, 244},
    {"sd3-medium", "text_encoder", 123650304, 197},
    {"sd3-medium", "text_encoder_3", 4762310656, 219},
    {"sd35-medium", "transformer", 2243171520, 909},
    {"sd35-large", "transformer", 8056627520, 1227},
    {"flux-dev", "transformer", 11901408320, 1160},
    {"flux-schnell", "transformer", 11891178560, 1156},
    {"flux-depth", "transformer", 11901604928, 1160},
    {"pixart-alpha", "transformer", 611349152, 611},
    {"pixart-sigma", "transformer", 610856096, 603},
    {"hunyuandit", "transformer", 1499952032, 1544},
    {"hunyuandit-v1.1", "transformer", 1516534048, 1545},
    {"hunyuandit", "text_encoder", 352035840, 391},
    {"hunyuandit", "text_encoder_2", 1669958656, 219},
};

/* Elements, buffers left out. */
static int64_t count_parameters(const struct tensor_list *list) {
    int64_t sum = 0;
    for (int i = 0; i < list->count; i++) sum += tensor_list_is_buffer(list->entries[i].name) ? 0 : tensor_count(&list->entries[i].tensor);
    return sum;
}

static void test_sizes(void) {
    tessera_error error = {0};
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        char *folder = NULL;
        CHECK(published_folder(published[i].class_name, &folder, &error) == TESSERA_OK, "%s", error.message);
        char *component = file_join(folder != NULL ? folder : "", published[i].component);
        struct tensor_list list = {0};
        CHECK(tensor_list_read(&list, component, &error) == TESSERA_OK, "%s", error.message);
        CHECK(count_parameters(&list) == published[i].parameters, "%s %s: %lld", published[i].class_name, published[i].component,
              (long long)count_parameters(&list));
        CHECK(list.count == published[i].tensors, "%s %s: %d tensors", published[i].class_name, published[i].component, list.count);
        tensor_list_clear(&list);
        free(component);
        free(folder);
    }
    CHECK(memory_peak_resident() < (size_t)256 << 20, "listing reads and makes no weights");
}

int main(void) {
    test_sizes();
    return CHECK_REPORT();
}
