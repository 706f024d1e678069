/* Which processor a rank computes on, where its machine (its containers together) has more ranks
 * than processors.
 *
 * Left alone, the kernel often lets two ranks that compute share a processor while the other one
 * has ranks that only look for messages. So each rank is bound to one, such that those that compute
 * at the same time have different ones: ranks of a stage side by side, and each further stage one
 * processor on, as patches of a picture follow each other through the stages.
 *
 *     8 ranks, pipefusion 4 x ring 2, on 2 processors       stage      0     1     2     3
 *                                                           processor 0 1   1 0   0 1   1 0 */
#ifndef TESSERA_CLI_BINDING_H
#define TESSERA_CLI_BINDING_H

#include "tessera.h"

/* On all ranks. `mesh` NULL: no axes yet. Binds all threads of this process, which was free to run
 * anywhere when it started; again for another mesh. Does nothing where every rank of the machine
 * can have a processor, where the launcher has bound the ranks already, or for ranks of several
 * threads. */
tessera_status binding_choose(tessera_world *world, const tessera_mesh *mesh, int threads, tessera_error *error);
/* Lets them run anywhere again, as before the first binding_choose. */
void binding_release(void);

#endif
