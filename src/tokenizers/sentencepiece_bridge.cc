/* The one C++ file of the tokenizers: sentencepiece (Kudo and Richardson 2018) has no C interface. */
#include "tokenizers/sentencepiece_bridge.h"

#include <sentencepiece_processor.h>

#include <cstdio>
#include <exception>
#include <vector>

namespace sentencepiece {
namespace logging {
void SetMinLogLevel(int level);  // exported by the library, but in none of its installed headers
}
}  // namespace sentencepiece

struct sentencepiece_model {
    sentencepiece::SentencePieceProcessor processor;
};

extern "C" struct sentencepiece_model *sentencepiece_open(const char *proto, size_t length, char *message, size_t capacity) try {
    sentencepiece::logging::SetMinLogLevel(3);  // errors come back as a status; nothing is printed
    struct sentencepiece_model *model = new struct sentencepiece_model;
    const auto status = model->processor.LoadFromSerializedProto(std::string(proto, length));
    if (status.ok()) return model;
    std::snprintf(message, capacity, "%s", status.message());
    delete model;
    return nullptr;
} catch (const std::exception &problem) {
    std::snprintf(message, capacity, "%s", problem.what());
    return nullptr;
}

extern "C" void sentencepiece_close(struct sentencepiece_model *model) {
    delete model;
}

extern "C" int sentencepiece_encode(const struct sentencepiece_model *model, const char *text, size_t length,
                                    int (*append)(void *user, int32_t id), void *user) try {
    std::vector<int> ids;
    if (!model->processor.Encode(std::string(text, length), &ids).ok()) return 0;
    for (int id : ids)
        if (!append(user, id)) return 0;
    return 1;
} catch (const std::exception &) {
    return 0;
}
