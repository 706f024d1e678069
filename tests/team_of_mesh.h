/* A team of ranks without the options that it is opened by. */
#ifndef TESSERA_TESTS_TEAM_OF_MESH_H
#define TESSERA_TESTS_TEAM_OF_MESH_H

#include <string.h>

#include "pipelines/team.h"

/* Over a mesh that stays the caller's (NULL: this rank alone): a picture in `patches` patches, an
 * autoencoder that is not divided. */
static inline struct team team_of_mesh(struct mesh *mesh, int patches) {
    struct team team = {.mesh = mesh, .choice.patches = patches};
    if (mesh != NULL) memcpy(team.choice.degrees, mesh->degrees, sizeof team.choice.degrees);
    return team;
}

#endif
