/* A tokenizer folder: which class it holds, its special tokens, and the frame of ids that a text
 * encoder takes.
 *
 *     CLIP:  bos tokens ... eos pad pad        T5:  tokens ... </s> pad pad        BERT:  [CLS] tokens ... [SEP] [PAD] [PAD]
 *
 * Where a folder has both layouts, vocab.json + merges.txt, spiece.model or vocab.txt is read
 * rather than tokenizer.json's model. As in transformers, a class that tokenizer_config.json names
 * brings its own rules (normalizer, pre-tokenizer, defaults) and takes only the vocabulary from
 * tokenizer.json; where none is named, tokenizer.json's rules count.
 *
 * Left out: padding and truncation on the left, and added_tokens.json. */
#include "tokenizers/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "tokenizers/clip_bpe.h"
#include "tokenizers/t5_sentencepiece.h"
#include "tokenizers/wordpiece.h"

enum tokenizer_class { CLASS_CLIP, CLASS_T5, CLASS_BERT };
enum { MOST_FILE_BYTES = 64 << 20, MOST_TEXT_BYTES = 16 << 20, MOST_LENGTH = 1 << 20 };

struct tokenizer {
    enum tokenizer_class class;
    bool named; /* by tokenizer_config.json, rather than found in the files */
    int model_max_length;
    struct clip_bpe clip;
    struct t5_sentencepiece t5;
    struct wordpiece bert;
};

/* What opening reads; all of it lives only that long. */
struct folder {
    const char *path;
    char *vocab_path, *merges_path, *spiece_path, *json_path, *config_path, *map_path, *words_path;
    struct json *config, *map, *json, *vocab;
    char *bytes;
};

static void folder_close(struct folder *folder) {
    char *paths[] = {folder->vocab_path,  folder->merges_path, folder->spiece_path, folder->json_path,
                     folder->config_path, folder->map_path,    folder->words_path};
    struct json *documents[] = {folder->config, folder->map, folder->json, folder->vocab};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) free(paths[i]);
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++)
        if (documents[i] != NULL) json_free(documents[i]);
    free(folder->bytes);
}

const char *const tokenizer_files[TOKENIZER_FILES] = {
    "vocab.json", "merges.txt", "spiece.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"};

static tessera_status folder_open(struct folder *folder, tessera_error *error) {
    char **paths[TOKENIZER_FILES] = {&folder->vocab_path,  &folder->merges_path, &folder->spiece_path, &folder->json_path,
                                     &folder->config_path, &folder->map_path,    &folder->words_path}; /* of tokenizer_files */
    for (int i = 0; i < TOKENIZER_FILES; i++)
        if ((*paths[i] = file_join(folder->path, tokenizer_files[i])) == NULL)
            return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    if (!file_is_folder(folder->path)) return error_set(error, TESSERA_ERROR_IO, "%s: no such tokenizer folder", folder->path);
    if (file_exists(folder->config_path)) TRY(json_open(folder->config_path, 0, &folder->config, error));
    if (file_exists(folder->map_path)) TRY(json_open(folder->map_path, 0, &folder->map, error));
    return TESSERA_OK;
}

/* The class that the name in tokenizer_config.json means; false if it names none in particular. */
static bool class_of_name(const char *name, enum tokenizer_class *class) {
    static const char *const names[] = {[CLASS_CLIP] = "CLIPTokenizer", [CLASS_T5] = "T5Tokenizer", [CLASS_BERT] = "BertTokenizer"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t length = strlen(names[i]);
        if (strncmp(name, names[i], length) != 0 || (name[length] != 0 && strcmp(name + length, "Fast") != 0)) continue;
        *class = (enum tokenizer_class)i;
        return true;
    }
    /* transformers has T5's tokenizer under mT5's name too */
    *class = CLASS_T5;
    return strcmp(name, "MT5Tokenizer") == 0 || strcmp(name, "MT5TokenizerFast") == 0;
}

/* The class of a folder that names none, from the files that it has; false if they are none we know. */
static tessera_status class_of_files(struct folder *folder, enum tokenizer_class *class, bool *found, tessera_error *error) {
    const char *type = "";
    *found = true;
    *class = CLASS_CLIP;
    if (file_exists(folder->vocab_path)) return TESSERA_OK;
    *class = CLASS_T5;
    if (file_exists(folder->spiece_path)) return TESSERA_OK;
    *class = CLASS_BERT;
    if (file_exists(folder->words_path)) return TESSERA_OK;
    if (file_exists(folder->json_path)) {
        TRY(json_open(folder->json_path, 0, &folder->json, error));
        TRY(json_string(folder->json, "model.type", "", &type, error));
    }
    *class = strcmp(type, "BPE") == 0 ? CLASS_CLIP : strcmp(type, "Unigram") == 0 ? CLASS_T5 : CLASS_BERT;
    *found = *class != CLASS_BERT || strcmp(type, "WordPiece") == 0;
    return TESSERA_OK;
}

static tessera_status detect_class(struct folder *folder, struct tokenizer *tokenizer, tessera_error *error) {
    const char *name = "";
    bool found = false;
    if (folder->config != NULL) TRY(json_string(folder->config, "tokenizer_class", "", &name, error));
    tokenizer->named = class_of_name(name, &tokenizer->class);
    if (tokenizer->named) return TESSERA_OK;
    if (*name == 0 || strcmp(name, "PreTrainedTokenizerFast") == 0 || strcmp(name, "TokenizersBackend") == 0)
        TRY(class_of_files(folder, &tokenizer->class, &found, error));
    if (found) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                     "%s: tokenizer_class \"%.60s\" is not supported; CLIPTokenizer, T5Tokenizer and BertTokenizer are",
                     folder->config_path, name);
}

/* One special token's name: tokenizer_config.json's, then special_tokens_map.json's over it, unless
 * the former lists all added tokens. */
static tessera_status read_special(struct folder *folder, const char *field, struct special_token *token, tessera_error *error) {
    if (folder->config != NULL) TRY(special_token_read(folder->config, field, token, error));
    bool complete = folder->config != NULL && json_find(folder->config, "added_tokens_decoder") != NULL;
    return folder->map != NULL && !complete ? special_token_read(folder->map, field, token, error) : TESSERA_OK;
}

static tessera_status read_specials(struct folder *folder, bool bert, struct special_tokens *specials, tessera_error *error) {
    TRY(read_special(folder, bert ? "cls_token" : "bos_token", &specials->bos, error));
    TRY(read_special(folder, bert ? "sep_token" : "eos_token", &specials->eos, error));
    TRY(read_special(folder, "unk_token", &specials->unk, error));
    return read_special(folder, "pad_token", &specials->pad, error);
}

/* The tokens that tokenizer_config.json adds to a vocabulary: the mask, those by id, and those
 * without one. */
static tessera_status read_added(struct folder *folder, struct added_tokens *added, const struct vocab *vocab, tessera_error *error) {
    struct special_token mask = {0};
    if (folder->config == NULL) return TESSERA_OK;
    TRY(added_tokens_read(added, folder->config, vocab, error));
    TRY(read_special(folder, "mask_token", &mask, error));
    if (mask.content != NULL) TRY(added_tokens_add(added, mask.content, added_tokens_id(added, vocab, mask.content), false, error));
    TRY(added_tokens_read_list(added, folder->config, "additional_special_tokens", vocab, error));
    return added_tokens_read_list(added, folder->config, "extra_special_tokens", vocab, error);
}

/* tokenizer.json, read once; an error if it is not there. */
static tessera_status need_json(struct folder *folder, const char *instead, tessera_error *error) {
    if (folder->json != NULL) return TESSERA_OK;
    if (!file_exists(folder->json_path))
        return error_set(error, TESSERA_ERROR_IO, "%s: neither %s nor tokenizer.json is there", folder->path, instead);
    return json_open(folder->json_path, 0, &folder->json, error);
}

static tessera_status open_clip(struct clip_bpe *clip, struct folder *folder, tessera_error *error) {
    struct special_tokens specials = {.bos = {"<|startoftext|>", false}, .eos = {"<|endoftext|>", false}, .unk = {"<|endoftext|>", false}};
    const char *name = folder->vocab_path;
    size_t length;
    TRY(read_specials(folder, false, &specials, error));
    if (specials.pad.content == NULL) specials.pad = specials.eos;
    if (file_exists(folder->vocab_path) && file_exists(folder->merges_path)) {
        TRY(json_open(folder->vocab_path, 0, &folder->vocab, error));
        TRY(clip_bpe_read_vocab(clip, folder->vocab, error));
        TRY(file_read_regular(folder->merges_path, MOST_FILE_BYTES, &folder->bytes, &length, error));
        TRY(clip_bpe_read_merges(clip, folder->merges_path, folder->bytes, length, error));
    } else {
        TRY(need_json(folder, "vocab.json with merges.txt", error));
        TRY(clip_bpe_read_json(clip, folder->json, error));
        name = folder->json_path;
    }
    TRY(read_added(folder, &clip->added, &clip->vocab, error));
    return clip_bpe_finish(clip, name, &specials, error);
}

static tessera_status open_t5(struct t5_sentencepiece *t5, struct folder *folder, bool named, tessera_error *error) {
    struct special_tokens specials = {.eos = {"</s>", false}, .unk = {"<unk>", false}, .pad = {"<pad>", false}};
    const char *name = folder->spiece_path;
    int64_t extra_ids = 100; /* the class's default */
    size_t length;
    TRY(read_specials(folder, false, &specials, error));
    if (folder->config != NULL) TRY(json_int(folder->config, "extra_ids", 100, 0, 10000, &extra_ids, error));
    if (file_exists(folder->spiece_path)) {
        TRY(file_read_regular(folder->spiece_path, MOST_FILE_BYTES, &folder->bytes, &length, error));
        TRY(t5_sentencepiece_read_model(t5, folder->spiece_path, (const uint8_t *)folder->bytes, length, error));
        TRY(t5_sentencepiece_add_extra_ids(t5, (int)extra_ids, true, error));
    } else {
        TRY(need_json(folder, "spiece.model", error));
        TRY(t5_sentencepiece_read_json(t5, folder->json, !named, error));
        name = folder->json_path;
    }
    TRY(read_added(folder, &t5->added, &t5->pieces, error));
    bool lists = folder->config != NULL && (json_find(folder->config, "extra_special_tokens") != NULL ||
                                            json_find(folder->config, "additional_special_tokens") != NULL);
    if (named && !lists && !file_exists(folder->spiece_path)) TRY(t5_sentencepiece_add_extra_ids(t5, (int)extra_ids, false, error));
    return t5_sentencepiece_finish(t5, name, &specials, error);
}

static tessera_status open_bert(struct wordpiece *bert, struct folder *folder, bool named, tessera_error *error) {
    struct special_tokens specials = {.bos = {"[CLS]", false}, .eos = {"[SEP]", false}, .unk = {"[UNK]", false}, .pad = {"[PAD]", false}};
    const char *name = folder->words_path;
    size_t length;
    TRY(read_specials(folder, true, &specials, error));
    if (file_exists(folder->words_path)) {
        TRY(file_read_regular(folder->words_path, MOST_FILE_BYTES, &folder->bytes, &length, error));
        TRY(wordpiece_read_vocab(bert, folder->bytes, length, error));
        named = true;
    } else {
        TRY(need_json(folder, "vocab.txt", error));
        TRY(wordpiece_read_json(bert, folder->json, error));
        name = folder->json_path;
    }
    if (named) TRY(wordpiece_read_rules(bert, folder->config, error));
    TRY(read_added(folder, &bert->added, &bert->vocab, error));
    return wordpiece_finish(bert, name, &specials, error);
}

/* model_max_length; transformers writes 1e30 for "none". */
static tessera_status read_max_length(const struct folder *folder, int *out, tessera_error *error) {
    double length = 0;
    if (folder->config != NULL) TRY(json_double(folder->config, "model_max_length", 0, &length, error));
    *out = length >= 2 && length <= MOST_LENGTH ? (int)length : 0;
    return TESSERA_OK;
}

tessera_status tokenizer_open(const char *path, struct tokenizer **out, tessera_error *error) {
    struct folder folder = {.path = path};
    struct tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    tessera_status status = TESSERA_ERROR_MEMORY;
    *out = NULL;
    if (tokenizer == NULL) return error_set(error, status, "out of memory for a tokenizer");
    if ((status = folder_open(&folder, error)) != TESSERA_OK) goto fail;
    if ((status = detect_class(&folder, tokenizer, error)) != TESSERA_OK) goto fail;
    if ((status = read_max_length(&folder, &tokenizer->model_max_length, error)) != TESSERA_OK) goto fail;
    if (tokenizer->class == CLASS_CLIP)
        status = open_clip(&tokenizer->clip, &folder, error);
    else if (tokenizer->class == CLASS_T5)
        status = open_t5(&tokenizer->t5, &folder, tokenizer->named, error);
    else
        status = open_bert(&tokenizer->bert, &folder, tokenizer->named, error);
    if (status != TESSERA_OK) goto fail;
    folder_close(&folder);
    *out = tokenizer;
    return TESSERA_OK;
fail:
    folder_close(&folder);
    tokenizer_free(tokenizer);
    return status;
}

void tokenizer_free(struct tokenizer *tokenizer) {
    if (tokenizer == NULL) return;
    clip_bpe_clear(&tokenizer->clip);
    t5_sentencepiece_clear(&tokenizer->t5);
    wordpiece_clear(&tokenizer->bert);
    free(tokenizer);
}

/* Writes bos (unless negative), as many tokens from `first` on as fit, eos and padding. */
static void write_frame(const struct text_ids *tokens, size_t first, int32_t bos, int32_t eos, int32_t pad, int max_length, int32_t *ids,
                        float *mask) {
    int used = 0;
    if (bos >= 0) ids[used++] = bos;
    for (size_t i = first; i < tokens->count && used < max_length - 1; i++) ids[used++] = tokens->data[i];
    ids[used++] = eos;
    for (int i = 0; i < max_length; i++) {
        if (i >= used) ids[i] = pad;
        if (mask != NULL) mask[i] = i < used ? 1.0f : 0.0f;
    }
}

tessera_status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, int max_length, int chunk, int32_t *ids, float *mask,
                                int *count, tessera_error *error) {
    if (max_length < 2) return error_set(error, TESSERA_ERROR_ARGUMENT, "max_length is %d; a tokenizer needs at least 2", max_length);
    size_t length = text != NULL ? strlen(text) : 0;
    if (length > MOST_TEXT_BYTES)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "the prompt has %zu bytes; at most %d are taken", length, MOST_TEXT_BYTES);
    struct text_bytes clean = {0};
    struct text_ids tokens = {0};
    bool clip = tokenizer->class == CLASS_CLIP, bert = tokenizer->class == CLASS_BERT;
    tessera_status status = TESSERA_OK;
    if (!text_append_repaired(&clean, text, length)) {
        status = error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a prompt");
        goto fail;
    }
    if (bert)
        status = wordpiece_encode(&tokenizer->bert, clean.data, clean.length, &tokens, error);
    else
        status = clip ? clip_bpe_encode(&tokenizer->clip, clean.data, clean.length, &tokens, error)
                      : t5_sentencepiece_encode(&tokenizer->t5, clean.data, clean.length, &tokens, error);
    if (status != TESSERA_OK) goto fail;
    size_t first = (size_t)chunk * (size_t)(max_length - 2);
    if (clip)
        write_frame(&tokens, first, tokenizer->clip.bos, tokenizer->clip.eos, tokenizer->clip.pad, max_length, ids, mask);
    else if (bert)
        write_frame(&tokens, first, tokenizer->bert.cls, tokenizer->bert.sep, tokenizer->bert.pad, max_length, ids, mask);
    else
        write_frame(&tokens, first, -1, tokenizer->t5.eos, tokenizer->t5.pad, max_length, ids, mask);
    if (count != NULL) *count = (int)tokens.count + (clip || bert ? 2 : 1);
fail:
    free(clean.data);
    free(tokens.data);
    return status;
}

const char *tokenizer_kind(const struct tokenizer *tokenizer) {
    static const char *const names[] = {[CLASS_CLIP] = "CLIP", [CLASS_T5] = "T5", [CLASS_BERT] = "BERT"};
    return names[tokenizer->class];
}

int tokenizer_model_max_length(const struct tokenizer *tokenizer) {
    return tokenizer->model_max_length;
}
