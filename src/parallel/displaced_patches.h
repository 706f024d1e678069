/* The hooks of displaced patches that a strategy of the same kind takes over: one whose state is a
 * struct displaced, whose halos, group norms and cut are the same, and which differs in what
 * attention sees (strategy.h says what each hook is). */
#ifndef TESSERA_PARALLEL_DISPLACED_PATCHES_H
#define TESSERA_PARALLEL_DISPLACED_PATCHES_H

#include "parallel/exchange.h"
#include "parallel/strategy.h"

tessera_status displaced_patches_open(const struct strategy_choice *choice, struct comm *group, void **state, tessera_error *error);
void displaced_patches_begin(void *state, const struct strategy_moment *moment);
tessera_status displaced_patches_reset(void *state, tessera_error *error);
void displaced_patches_close(void *state);
struct halo displaced_patches_halo(struct run *run, const struct strategy_link *link, struct tensor x, int64_t above, int64_t below);
void displaced_patches_group_stats(struct run *run, const struct strategy_link *link, struct tensor *stats, double weight, double elements);
tessera_status displaced_patches_cut(struct run *run, const struct strategy_link *link, int64_t rows, int64_t columns, struct cut **out);
/* What lies with the messages is the host's: memory of `shape` for what is written there, or a view
 * of it; writes it there; and a tensor of the run's memory that has what is there. Where the run's
 * memory is the host's nothing is copied. */
struct tensor displaced_patches_target(struct run *run, void *host, struct tensor shape);
void displaced_patches_written(struct run *run, void *host, struct tensor target);
struct tensor displaced_patches_read(struct run *run, void *host, struct tensor shape);
/* Of halos and norms; of the gathered prediction. */
void displaced_patches_rows_bytes(struct plan_pass *pass, const struct meeting *meeting);
void displaced_patches_end_bytes(struct plan_pass *pass, int64_t latents);
/* Of as many patches as the strategy's patches_seen says. */
void displaced_patches_meeting_wait(const struct plan_estimate *estimate, const struct meeting *meeting, double attention,
                                    struct plan_cost *cost);
void displaced_patches_end_wait(const struct plan_estimate *estimate, struct plan_cost *cost);

#endif
