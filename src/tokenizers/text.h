/* What the tokenizers need around their models: growing lists of bytes and ids, UTF-8, and added
 * tokens.
 *
 * An added token ("<|endoftext|>", "</s>", "<extra_id_3>") is cut out of the text before the model sees it, the longest one at
 * the leftmost place first: those with `normalized` false out of the raw text, the others out of
 * the normalised text. */
#ifndef TESSERA_TOKENIZERS_TEXT_H
#define TESSERA_TOKENIZERS_TEXT_H

#include "base/error.h"
#include "tokenizers/vocab.h"

struct cJSON;
struct json;

struct text_bytes {
    char *data;
    size_t length, capacity;
};
bool text_bytes_append(struct text_bytes *bytes, const char *data, size_t length); /* false: memory is out */

struct text_ids {
    int32_t *data;
    size_t count, capacity;
};
bool text_ids_append(struct text_ids *ids, int32_t id);

/* The code point at `data` (valid UTF-8, length > 0) and, in *size, its bytes. */
int32_t text_decode(const char *data, size_t length, size_t *size);
bool text_append_codepoint(struct text_bytes *bytes, int32_t codepoint);
/* In lower case; only U+0130 becomes two code points: i and a dot above (SpecialCasing.txt). */
bool text_append_lower(struct text_bytes *bytes, int32_t codepoint);
/* Appends `length` bytes; each byte that is not part of valid UTF-8 becomes U+FFFD. */
bool text_append_repaired(struct text_bytes *bytes, const char *data, size_t length);
bool text_is_valid(const char *data, size_t length);
bool text_is_space(int32_t codepoint); /* Unicode's White_Space */

struct added_token {
    char *content;
    size_t length;
    int32_t id;
    bool normalized;
};
struct added_tokens {
    struct added_token *tokens;
    size_t count;
    bool first_bytes[256];
};

/* Adds a token unless its content is there; an empty one, or one with an id below 0, is our
 * caller's error. */
tessera_status added_tokens_add(struct added_tokens *added, const char *content, int32_t id, bool normalized, tessera_error *error);
/* Adds what "added_tokens" (a list, tokenizer.json) or "added_tokens_decoder" (an object by id,
 * tokenizer_config.json) lists. The id in `vocab` goes before the listed one. An absent field adds
 * nothing. */
tessera_status added_tokens_read(struct added_tokens *added, const struct json *json, const struct vocab *vocab, tessera_error *error);
/* Adds what a list of strings or of objects with "content" names ("additional_special_tokens"), cut
 * out of the raw text; one that `vocab` lacks gets the next free id. An absent field, or one that
 * is no list, adds nothing. */
tessera_status added_tokens_read_list(struct added_tokens *added, const struct json *json, const char *field, const struct vocab *vocab,
                                      tessera_error *error);
/* The id of a token in `vocab` or among the added ones, else the first id above all of them. */
int32_t added_tokens_id(const struct added_tokens *added, const struct vocab *vocab, const char *content);
/* The first token at or after *start whose `normalized` is the given one: its index, *start moved
 * to it; -1 if there is none. */
int added_tokens_search(const struct added_tokens *added, bool normalized, const char *text, size_t length, size_t *start);
void added_tokens_clear(struct added_tokens *added);

/* The names of the special tokens: from special_tokens_map.json (unless tokenizer_config.json has
 * added_tokens_decoder: then it is not read, as in transformers), then tokenizer_config.json, then
 * the class's default. BERT's are [CLS] (bos) and [SEP] (eos). */
struct special_token {
    const char *content;
    bool normalized;
}; /* content borrowed from the JSON document or a constant */
struct special_tokens {
    struct special_token bos, eos, unk, pad;
};
/* Reads one field (a string or an object with "content"); `token` stays as it is when the field is
 * absent. */
tessera_status special_token_read(const struct json *json, const char *field, struct special_token *token, tessera_error *error);

#endif
