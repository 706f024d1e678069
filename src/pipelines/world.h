/* The public handle of a world is a group of comm/. */
#ifndef TESSERA_PIPELINES_WORLD_H
#define TESSERA_PIPELINES_WORLD_H

#include "comm/comm.h"
#include "tessera.h"

struct tessera_world {
    struct comm *comm;
};

#endif
