/* A strategy: what it does wherever tokens of several ranks meet, as a set of hooks. One file has all
 * hooks of a strategy, one line of the table below lists it, and nothing else asks which strategies
 * there are.
 *
 *     parallel_compose          the chain of a run, outermost first:    ulysses -> pipefusion -> ring -> rows
 *
 *     exchange_attention        the first link with `attend`; each may hand on to the next one
 *     exchange_halo_start       the first link with `halo`
 *     exchange_group_stats      the first link with `group_stats`
 *     exchange_text             all of the text on every rank where a link says so (`keeps_text_whole`)
 *     exchange_cut_tokens       the first link with `cut`, of the rows that `held_rows` says
 *     plan_step_bytes           the sum of what all links send (`meeting_bytes`, `end_bytes`)
 *     plan_evaluate             the sum of what is waited for meanwhile (`meeting_wait`, `end_wait`)
 *
 * A hook that is NULL leaves its question to the next link; behind the last one it is answered as
 * by one rank alone.
 *
 * The order of tokens is the model's, and everywhere the same: the picture's row by row and the
 * text's behind them, or before them (text_first). A rank holds a span of both. Where keys of
 * several ranks lie in one tensor, the picture's come in rank order, then the text's in rank order
 * (or first), so that the order does not depend on whether the text is cut. Picture and text stay
 * apart until they are where an operator reads them. */
#ifndef TESSERA_PARALLEL_STRATEGY_H
#define TESSERA_PARALLEL_STRATEGY_H

#include "parallel/exchange.h"
#include "parallel/plan_pass.h"
#include "parallel/plan_wait.h"

/* ---- attention ---- */

enum { STREAM_PICTURE, STREAM_TEXT, STREAMS };

/* One attention layer, as a link is given it. */
struct attention_call {
    const struct cut *cut; /* NULL: this rank has everything */
    struct span members;   /* of the cut: whose tokens these are */
    int64_t batch, heads, width;
    enum dtype dtype;
    float scale;
    int64_t text_total; /* tokens of the whole text; 0: none */
    bool text_first;
    bool text_whole;                                      /* each rank has all of the text; otherwise its span */
    bool placed;                                          /* k and v lie where this link's `place` wanted them */
    struct token_span q[STREAMS], k[STREAMS], v[STREAMS]; /* count 0: this rank has none, or (q) nothing is asked */
    struct token_span out[STREAMS];                       /* the result, of the shape of q; set by the link */
};

/* Tokens of the picture, and of a text that is cut, on some members of the call's cut. */
int64_t attention_picture_tokens(const struct attention_call *call, struct span members);
int64_t attention_text_tokens(const struct run *run, const struct attention_call *call, struct span members);

/* Hands a call on to the link behind `link`: where the next one wants keys and values whose counts
 * are known; its result. */
void attention_place_next(struct run *run, const struct strategy_link *link, struct attention_call *call);
void attention_next(struct run *run, const struct strategy_link *link, struct attention_call *call);

/* Where the spans of both streams lie in one tensor [B, ., N, D], in the order of tokens. */
void attention_lay_out(const struct attention_call *call, struct tensor x, struct token_span spans[STREAMS]);
/* Both streams as one tensor: without a copy where they lie so already. */
struct tensor attention_join(struct run *run, const struct attention_call *call, const struct token_span spans[STREAMS]);
/* Queries q, as attention_join made them, have the result `out`. */
void attention_set_out(struct attention_call *call, struct tensor out);
/* Brings keys and values to where `place` says, if they are not there yet. */
void attention_bring(struct run *run, const struct strategy_link *link, struct attention_call *call);

/* Copies: spans of equal counts; of them some heads [.., first .. first + heads, D] to the heads
 * from `at` on. Empty ones are fine. */
void token_span_copy(struct run *run, struct token_span to, struct token_span from);
void token_span_copy_heads(struct run *run, struct token_span to, int64_t at, struct token_span from, int64_t first, int64_t heads);

/* ---- the hooks ---- */

struct strategy {
    const char *name; /* "ulysses"; of those on the patch axis the value of --parallelism */
    int group;        /* of the mesh: an enum mesh_axis, or MESH_CUT */
    bool (*applies)(const struct strategy_choice *choice);

    /* Its state, if it has one: made with the mesh, told of each pass, forgetful between pictures.
     */
    tessera_status (*open)(const struct strategy_choice *choice, struct comm *group, void **state, tessera_error *error);
    void (*begin)(void *state, const struct strategy_moment *moment);
    tessera_status (*reset)(void *state, tessera_error *error);
    void (*close)(void *state);

    /* call->out from q, k and v. */
    void (*attend)(struct run *run, const struct strategy_link *link, struct attention_call *call);
    /* Where `attend` reads keys and values: sets x and first of k and v, whose counts are given, so
     * that they can be received there. */
    void (*place)(struct run *run, const struct strategy_link *link, struct attention_call *call);
    /* Keys and values of the other members' positions beside the call's own, in k and v [B, ., N,
     * D], whose row `origin` is the picture's first position. */
    void (*collect)(struct run *run, const struct strategy_link *link, const struct attention_call *call, struct tensor k, struct tensor v,
                    int64_t origin);

    struct halo (*halo)(struct run *run, const struct strategy_link *link, struct tensor x, int64_t above, int64_t below);
    void (*group_stats)(struct run *run, const struct strategy_link *link, struct tensor *stats, double weight, double elements);

    bool (*keeps_text_whole)(const struct strategy_choice *choice);
    struct span (*held_rows)(const void *state, int64_t rows); /* which of a picture's rows this rank works on now */
    tessera_status (*cut)(struct run *run, const struct strategy_link *link, int64_t rows, int64_t columns, struct cut **out);

    /* A patch of the latents [B, H, W, C] that is a picture of its own, of whole `unit`s, and all
     * patches [B, h, w, c] side by side again. */
    struct tensor (*split)(struct run *run, const struct strategy_link *link, struct tensor latents, int64_t unit);
    struct tensor (*unite)(struct run *run, const struct strategy_link *link, struct tensor mine, struct tensor latents, int64_t unit);

    bool cuts_whole_rows; /* `cut` never divides a row of tokens */
    bool collects_keys;   /* where a picture goes in patches, `attend` asks the links behind it to `collect` */
    /* Of those on the patch axis that a plan may choose: of a picture in so many patches, how many a
     * rank's attention sees after warm-up. NULL: no plan has it. */
    int (*patches_seen)(int patches);
    /* What the rank of `pass` sends: for one meeting of a block; where it is done with a patch of
     * the picture, of so many latents. */
    void (*meeting_bytes)(struct plan_pass *pass, const struct meeting *meeting);
    void (*end_bytes)(struct plan_pass *pass, int64_t latents);
    /* How long that takes, added to *cost: in one meeting of a block, beside attention of so many
     * seconds a layer; at the end of a step. */
    void (*meeting_wait)(const struct plan_estimate *estimate, const struct meeting *meeting, double attention, struct plan_cost *cost);
    void (*end_wait)(const struct plan_estimate *estimate, struct plan_cost *cost);
};

/* ---- the table ---- */

/* STRATEGY(variable), from the outermost to the innermost. A new strategy is one file and one line
 * here. */
#define STRATEGY_TABLE(STRATEGY)                                                                   \
    STRATEGY(cfg_strategy)                /* each half of guidance elsewhere */                    \
    STRATEGY(naive_patches_strategy)      /* patches that are pictures of their own */             \
    STRATEGY(displaced_patches_strategy)  /* patches that see the others one step late */          \
    STRATEGY(pcpp_strategy)               /* of those the neighbours alone */                      \
    STRATEGY(ulysses_strategy)            /* heads for tokens */                                   \
    STRATEGY(pipefusion_strategy)         /* patches one after another through stages of blocks */ \
    STRATEGY(ring_strategy)               /* keys and values go round */                           \
    STRATEGY(rows_strategy)               /* neighbours' rows and common statistics, exactly */    \
    STRATEGY(tensor_strategy)             /* each layer's heads and channels elsewhere */

#define DECLARE_STRATEGY(variable) extern const struct strategy variable;
STRATEGY_TABLE(DECLARE_STRATEGY)
#undef DECLARE_STRATEGY

/* The strategy at a place of the table, outermost first; NULL behind the last. */
const struct strategy *strategy_at(int place);
/* Where in the table it is, the same in every process. */
int strategy_place(const struct strategy *strategy);
/* Those that a plan's mesh has, outermost first. */
struct plan_chain {
    const struct strategy *strategies[PARALLEL_MAX_LINKS];
    int count;
};
struct plan_chain plan_chain_of(const struct plan_mesh *mesh);
/* The one on the patch axis with this name, NULL: the usual one; NULL if there is none. */
const struct strategy *strategy_of_patches(const char *name);

#endif
