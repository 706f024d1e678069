/* The made-up vocabulary: <pad>, </s>, <unk>, the space symbol, every printable ASCII character,
 * then the strings aa, ab, ..., zz, aaa, ... alternately with and without the space symbol before
 * them. A longer string scores better than its parts, so a text is cut into few pieces. The layout
 * is that of tokenizers' tokenizer.json (model type Unigram, Kudo 2018). */
#include "checkpoint/made_up_tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"

#define SPACE_SYMBOL "\u2581"
enum { FIRST_PRINTABLE = '!', LAST_PRINTABLE = '~', LETTERS = 26, LEAST_PIECES = 200 };

static const char specials[] = "  \"eos_token\": \"</s>\",\n  \"pad_token\": \"<pad>\",\n  \"unk_token\": \"<unk>\"";

static void write_special(FILE *stream, int id, const char *content) {
    fprintf(
        stream,
        "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}",
        id > 0 ? "," : "", id, content);
}

/* The n-th (from 0) string of two or more letters, in the order of length, then of the alphabet;
 * returns its length. */
static int letters_of(int64_t n, char *out) {
    int length = 2;
    int64_t many = LETTERS * LETTERS;
    while (n >= many) {
        n -= many;
        many *= LETTERS;
        length++;
    }
    for (int i = length - 1; i >= 0; i--, n /= LETTERS) out[i] = (char)('a' + n % LETTERS);
    out[length] = 0;
    return length;
}

static void write_vocabulary(FILE *stream, int64_t size) {
    int64_t count = 4;
    fputs("[\"<pad>\",0],[\"</s>\",0],[\"<unk>\",0],[\"" SPACE_SYMBOL "\",-4]", stream);
    for (int c = FIRST_PRINTABLE; c <= LAST_PRINTABLE; c++, count++)
        fprintf(stream, ",[\"%s%c\",-9]", c == '"' || c == '\\' ? "\\" : "", c);
    for (int64_t n = 0; count < size; n++, count++) {
        char text[32];
        int length = letters_of(n / 2, text);
        fprintf(stream, ",[\"%s%s\",-%d]", n % 2 == 0 ? SPACE_SYMBOL : "", text, 9 + length);
    }
}

static void write_tokenizer(FILE *stream, int64_t size) {
    fputs("{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[", stream);
    write_special(stream, 0, "<pad>");
    write_special(stream, 1, "</s>");
    write_special(stream, 2, "<unk>");
    fputs("],\"normalizer\":null,"
          "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"" SPACE_SYMBOL "\",\"prepend_scheme\":\"always\",\"split\":true},"
          "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"
          "{\"SpecialToken\":{\"id\":\"</s>\",\"type_id\":0}}],\"pair\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"
          "{\"SpecialToken\":{\"id\":\"</s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"B\",\"type_id\":0}},"
          "{\"SpecialToken\":{\"id\":\"</s>\",\"type_id\":0}}],"
          "\"special_tokens\":{\"</s>\":{\"id\":\"</s>\",\"ids\":[1],\"tokens\":[\"</s>\"]}}},"
          "\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"" SPACE_SYMBOL "\",\"prepend_scheme\":\"always\",\"split\":true},"
          "\"model\":{\"type\":\"Unigram\",\"unk_id\":2,\"byte_fallback\":false,\"vocab\":[",
          stream);
    write_vocabulary(stream, size);
    fputs("]}}\n", stream);
}

static tessera_status open_in(const char *folder, const char *name, struct file_output *output, tessera_error *error) {
    char *path = file_join(folder, name);
    if (path == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", folder);
    tessera_status status = file_output_open(path, output, error);
    free(path);
    return status;
}

tessera_status made_up_tokenizer_write(const char *folder, int64_t vocab_size, tessera_error *error) {
    struct file_output output;
    if (vocab_size < LEAST_PIECES)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: vocab_size is %lld; a made-up tokenizer has at least %d pieces", folder,
                         (long long)vocab_size, LEAST_PIECES);
    TRY(open_in(folder, "tokenizer.json", &output, error));
    write_tokenizer(output.stream, vocab_size);
    TRY(file_output_commit(&output, error));
    TRY(open_in(folder, "tokenizer_config.json", &output, error));
    fprintf(output.stream, "{\n%s,\n  \"extra_ids\": 0,\n  \"model_max_length\": 512,\n  \"tokenizer_class\": \"T5Tokenizer\"\n}\n",
            specials);
    TRY(file_output_commit(&output, error));
    TRY(open_in(folder, "special_tokens_map.json", &output, error));
    fprintf(output.stream, "{\n%s\n}\n", specials);
    return file_output_commit(&output, error);
}
