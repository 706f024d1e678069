/* The tokenizers against transformers' ids: every tokenizer case, both file layouts, and what must
 * be refused. */
#include "check.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "tokenizers/clip_bpe.h"
#include "tokenizers/t5_sentencepiece.h"
#include "tokenizers/tokenizer.h"
#include "tokenizers/wordpiece.h"

enum { LONGEST = 512 };

static void check_prompt(const struct tokenizer *tokenizer, const char *folder, const char *prompt, int max_length,
                         const struct cJSON *expected, const struct cJSON *expected_ones) {
    int32_t ids[LONGEST];
    float mask[LONGEST];
    int count = 0, differing = 0, place = 0;
    tessera_error error = {0};
    CHECK(tokenizer_encode(tokenizer, prompt, max_length, 0, ids, mask, &count, &error) == TESSERA_OK, "%s: %s", folder, error.message);
    for (const struct cJSON *id = expected->child; id != NULL; id = id->next, place++)
        if (place >= max_length || ids[place] != id->valueint) differing++;
    CHECK(place == max_length && differing == 0, "%s: %d ids of \"%s\" differ", folder, differing, prompt);
    int ones = 0;
    for (int i = 0; i < max_length; i++) ones += mask[i] == 1.0f;
    CHECK(expected_ones == NULL || expected_ones->valueint == ones, "%s: mask of \"%s\": %d ones", folder, prompt, ones);
    CHECK(ones == (count < max_length ? count : max_length), "%s: mask of \"%s\": %d ones, %d tokens", folder, prompt, ones, count);
}

/* The prompts and ids of case_path with the tokenizer in `folder`. */
static void check_case(const char *case_path, const char *folder) {
    tessera_error error = {0};
    struct json *json = NULL;
    struct tokenizer *tokenizer = NULL;
    CHECK(json_open(case_path, 0, &json, &error) == TESSERA_OK, "%s", error.message);
    CHECK(tokenizer_open(folder, &tokenizer, &error) == TESSERA_OK, "%s", error.message);
    if (json != NULL && tokenizer != NULL) {
        const struct cJSON *prompt = json_find(json, "prompts")->child, *ids = json_find(json, "input_ids")->child;
        const struct cJSON *ones = json_find(json, "attention_mask_ones");
        int max_length = json_find(json, "max_length")->valueint;
        CHECK(prompt != NULL, "%s: no prompts", case_path);
        ones = ones != NULL ? ones->child : NULL;
        for (; prompt != NULL && ids != NULL; prompt = prompt->next, ids = ids->next) {
            check_prompt(tokenizer, folder, prompt->valuestring, max_length, ids, ones);
            if (ones != NULL) ones = ones->next;
        }
    }
    tokenizer_free(tokenizer);
    if (json != NULL) json_free(json);
}

static void test_frame(void) {
    tessera_error error = {0};
    struct tokenizer *tokenizer = NULL;
    int32_t ids[8] = {0};
    int count;
    CHECK(tokenizer_open("tests/cases/tokenizer_clip/tokenizer", &tokenizer, &error) == TESSERA_OK, "%s", error.message);
    if (tokenizer == NULL) return;
    CHECK(tokenizer_model_max_length(tokenizer) == 77, "%d", tokenizer_model_max_length(tokenizer));
    CHECK(tokenizer_encode(tokenizer, "a", 1, 0, ids, NULL, NULL, &error) == TESSERA_ERROR_ARGUMENT, "max_length 1 is refused");
    CHECK(tokenizer_encode(tokenizer, "1 2 3 4 5", 4, 0, ids, NULL, &count, &error) == TESSERA_OK && ids[3] == 790 && count == 7, "%d", count);
    int32_t broken[8], repaired[8];
    tokenizer_encode(tokenizer, "\xFF", 8, 0, broken, NULL, NULL, &error);
    tokenizer_encode(tokenizer, "\xEF\xBF\xBD", 8, 0, repaired, NULL, NULL, &error);
    CHECK(memcmp(broken, repaired, sizeof broken) == 0, "a stray byte becomes U+FFFD");
    char *longest = malloc(1000001);
    memset(longest, 'a', 1000000);
    longest[1000000] = 0;
    CHECK(tokenizer_encode(tokenizer, longest, 8, 0, ids, NULL, &count, &error) == TESSERA_OK && count > 1000, "a word of 1 MB: %d", count);
    free(longest);
    tokenizer_free(tokenizer);
    CHECK(tokenizer_open("tests/cases/no_such_folder", &tokenizer, &error) == TESSERA_ERROR_IO && tokenizer == NULL, "missing folder");
}

/* Opens a CLIP model from two texts; the status of the first step that fails. */
static tessera_status read_clip(const char *vocab_text, const char *merges, tessera_error *error) {
    struct json *vocab = NULL;
    struct clip_bpe bpe = {0};
    struct special_token end = {"e", false};
    struct special_tokens specials = {end, end, end, end};
    tessera_status status = json_parse("vocab.json", vocab_text, strlen(vocab_text), &vocab, error);
    if (status == TESSERA_OK) status = clip_bpe_read_vocab(&bpe, vocab, error);
    if (status == TESSERA_OK) status = clip_bpe_read_merges(&bpe, "merges.txt", merges, strlen(merges), error);
    if (status == TESSERA_OK) status = clip_bpe_finish(&bpe, "vocab.json", &specials, error);
    clip_bpe_clear(&bpe);
    if (vocab != NULL) json_free(vocab);
    return status;
}

static void test_refused(void) {
    struct {
        const char *vocab, *merges, *says;
    } cases[] = {{"{\"a\":0,\"a\":1}", "", "twice"},      {"{\"a\":0,\"b\":0}", "", "twice"},
                 {"{\"a\":-1}", "", "whole number"},      {"{\"a\":1e9}", "", "whole number"},
                 {"{\"e\":0,\"b\":1}", "e b\n", "lacks"}, {"{\"e\":0}", "e\n", "two tokens"},
                 {"{\"a\":0}", "", "bos_token"},          {"[]", "", "object"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tessera_error error = {0};
        tessera_status status = read_clip(cases[i].vocab, cases[i].merges, &error);
        CHECK(status == TESSERA_ERROR_FORMAT && strstr(error.message, cases[i].says) != NULL, "%s: \"%s\"", cases[i].vocab, error.message);
    }
    tessera_error error = {0};
    CHECK(read_clip("{\"e\":0,\"b\":1,\"eb\":2}", "#version: 0.2\ne b\n", &error) == TESSERA_OK, "%s", error.message);
    struct t5_sentencepiece t5 = {0};
    const uint8_t cut[] = {0x0A, 0x20, 0x0A};
    CHECK(t5_sentencepiece_read_model(&t5, "spiece.model", cut, sizeof cut, &error) == TESSERA_ERROR_FORMAT, "a cut spiece.model");
    t5_sentencepiece_clear(&t5);
}

/* The cases of make_tokenizer_cases.py: both layouts, padding tokens, BERT's and Metaspace's options. */
static void test_variants(void) {
    static const char *const names[] = {"clip_json",         "clip_pad_config",
                                        "clip_pad_map",      "clip_pad_map_wins",
                                        "clip_pad_decoder",  "clip_json_pad",
                                        "clip_json_pad_map", "bert_json",
                                        "bert_cased",        "bert_cased_plain",
                                        "bert_accents",      "bert_json_no_chinese",
                                        "bert_json_pad",     "bert_json_unnamed",
                                        "t5_json",           "t5_extra_ids",
                                        "t5_json_extra_ids", "t5_json_always",
                                        "t5_json_first",     "t5_json_never",
                                        "t5_json_named",     "mt5",
                                        "clip_signs",        "bert_signs"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char folder[128], path[160], tokenizer[160];
        snprintf(folder, sizeof folder, "tests/cases/tokenizer_%s", names[i]);
        snprintf(path, sizeof path, "%s/case.json", folder);
        snprintf(tokenizer, sizeof tokenizer, "%s/tokenizer", folder);
        check_case(path, tokenizer);
    }
}

/* A WordPiece model from tokenizer.json's text; the status of the first step that fails. */
static tessera_status read_wordpiece(const char *text, tessera_error *error) {
    struct json *json = NULL;
    struct wordpiece bert = {0};
    struct special_token u = {"u", false};
    struct special_tokens specials = {u, u, u, u};
    struct text_ids ids = {0};
    tessera_status status = json_parse("tokenizer.json", text, strlen(text), &json, error);
    if (status == TESSERA_OK) status = wordpiece_read_json(&bert, json, error);
    if (status == TESSERA_OK) status = wordpiece_finish(&bert, "tokenizer.json", &specials, error);
    if (status == TESSERA_OK) status = wordpiece_encode(&bert, "ab abc", 6, &ids, error);
    if (status == TESSERA_OK) CHECK(ids.count == 3 && ids.data[0] == 1 && ids.data[1] == 2 && ids.data[2] == 0, "%zu pieces", ids.count);
    free(ids.data);
    wordpiece_clear(&bert);
    json_free(json);
    return status;
}

static void test_wordpiece_json(void) {
    static const char good[] =
        "{\"model\":{\"type\":\"WordPiece\",\"continuing_subword_prefix\":\"@\",\"vocab\":{\"u\":0,\"a\":1,\"@b\":2}}}";
    struct {
        const char *text, *says;
    } cases[] = {{"{\"model\":{\"type\":\"BPE\"}}", "WordPiece"},
                 {"{\"model\":{\"vocab\":[]}}", "model.vocab"},
                 {"{\"model\":{\"vocab\":{\"u\":-1}}}", "whole number"},
                 {"{\"model\":{\"vocab\":{\"a\":1}}}", "special token"},
                 {"{\"model\":{\"continuing_subword_prefix\":\"12345678901234567\"}}", "prefix"},
                 {"{\"model\":{\"vocab\":{\"u\":0}},\"normalizer\":{\"type\":\"NFC\"}}", "BertNormalizer"}};
    tessera_error error = {0};
    CHECK(read_wordpiece(good, &error) == TESSERA_OK, "%s", error.message);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK(read_wordpiece(cases[i].text, &error) != TESSERA_OK && strstr(error.message, cases[i].says) != NULL, "%s: \"%s\"",
              cases[i].text, error.message);
    }
}

/* Runs of signs have many equally likely ways to be cut; the one taken is transformers'
 * (make_ties.py). */
static void test_ties(void) {
    struct tokenizer *tokenizer = NULL;
    tessera_error error = {0};
    char *text = NULL;
    size_t length = 0;
    int lines = 0;
    CHECK(tokenizer_open("assets/tokenizers/t5", &tokenizer, &error) == TESSERA_OK, "%s", error.message);
    CHECK(file_read("tests/tokenizers/ties.txt", 1 << 24, &text, &length, &error) == TESSERA_OK, "%s", error.message);
    char *rest = text, *line;
    while (tokenizer != NULL && (line = strsep(&rest, "\n")) != NULL && *line != 0) {
        static int32_t ids[1024];
        char *want = strchr(line, '\t');
        int count = 0, i = 0;
        *want++ = 0;
        CHECK(tokenizer_encode(tokenizer, line, 1024, 0, ids, NULL, &count, &error) == TESSERA_OK, "%s", error.message);
        bool same = true;
        for (char *end; *want != 0; want = end) {
            long id = strtol(want, &end, 10);
            same = same && i < count && ids[i++] == id;
        }
        CHECK(same && i == count, "the ids of \"%s\" are not transformers'", line);
        lines++;
    }
    CHECK(lines > 600, "all lines are there");
    free(text);
    tokenizer_free(tokenizer);
}

/* Of added tokens that begin alike, the longest counts, whichever came first. */
static void test_added_tokens(void) {
    tessera_error error = {0};
    static const char *const orders[][3] = {{"<a", "<ab", "<abc"}, {"<abc", "<ab", "<a"}};
    for (int i = 0; i < 2; i++) {
        struct added_tokens added = {0};
        size_t start = 0;
        for (int k = 0; k < 3; k++) CHECK(added_tokens_add(&added, orders[i][k], k, false, &error) == TESSERA_OK, "%s", error.message);
        int found = added_tokens_search(&added, false, "x <abd", 6, &start);
        CHECK(found == 1 && start == 2, "token %d at %zu", found, start);
        added_tokens_clear(&added);
    }
}

/* A character without a piece costs ten more than the least likely piece, wherever that stands in
 * the list: "xa" is cheaper as a piece. */
static void test_unknown(void) {
    static const char text[] =
        "{\"model\": {\"type\": \"Unigram\", \"unk_id\": 2, \"vocab\": [[\"<pad>\", 0], [\"</s>\", 0], [\"<unk>\", 0], "
        "[\"\xE2\x96\x81\", -2], [\"xa\", -50], [\"a\", -1]]}}";
    const struct special_tokens specials = {.eos = {"</s>", false}, .unk = {"<unk>", false}, .pad = {"<pad>", false}};
    struct t5_sentencepiece t5 = {0};
    struct text_ids ids = {0};
    struct json *json = NULL;
    tessera_error error = {0};
    tessera_status status = json_parse("tokenizer.json", text, strlen(text), &json, &error);
    if (status == TESSERA_OK) status = t5_sentencepiece_read_json(&t5, json, false, &error);
    if (status == TESSERA_OK) status = t5_sentencepiece_finish(&t5, "tokenizer.json", &specials, &error);
    if (status == TESSERA_OK) status = t5_sentencepiece_encode(&t5, "xa a x", 6, &ids, &error);
    const int32_t want[] = {3, 4, 3, 5, 3, 2};
    CHECK(status == TESSERA_OK && ids.count == 6 && memcmp(ids.data, want, sizeof want) == 0, "%zu ids: %s", ids.count, error.message);
    free(ids.data);
    t5_sentencepiece_clear(&t5);
    json_free(json);
}

int main(void) {
    test_added_tokens();
    test_unknown();
    CHECK(text_is_space(0x85) && text_is_space(0x2028) && text_is_space(0x3000) && !text_is_space(0x200B), "Unicode's White_Space");
    const char *clip = "tests/cases/tokenizer_clip/case.json", *t5 = "tests/cases/tokenizer_t5/case.json";
    check_case(clip, "tests/cases/tokenizer_clip/tokenizer");
    check_case(clip, "tests/cases/pipeline_sd3/model/tokenizer");
    check_case(t5, "tests/cases/tokenizer_t5/tokenizer");
    check_case("tests/cases/tokenizer_bert/case.json", "tests/cases/tokenizer_bert/tokenizer");
    check_case(t5, "tests/cases/pipeline_sd3/model/tokenizer_3");
    test_variants();
    test_wordpiece_json();
    test_frame();
    test_refused();
    test_ties();
    return CHECK_REPORT();
}
