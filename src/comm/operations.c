/* See operations.h. */
#include "comm/operations.h"

#include <stdlib.h>

#include "comm/comm_state.h"

void operations_free(struct comm *comm) {
    while (comm->all_operations != NULL) {
        struct comm_operation *operation = comm->all_operations;
        comm->all_operations = operation->next_of_all;
        free(operation->scratch);
        free(operation);
    }
}

void operations_reclaim(struct comm *comm) {
    comm->operations = NULL;
    for (struct comm_operation *operation = comm->all_operations; operation != NULL; operation = operation->next_of_all) {
        operation->next = comm->operations;
        comm->operations = operation;
    }
}
