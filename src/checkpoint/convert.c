/* What both directions share. */
#include "checkpoint/convert.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tensor/tensor.h"

void convert_report_missing(struct convert_report *report, const char *component) {
    size_t used = strlen(report->missing);
    snprintf(report->missing + used, sizeof report->missing - used, "%s%s", used > 0 ? ", " : "", component);
}

/* MADV_PAGEOUT loses nothing, also where the tensor is a copy in memory; where the system does not
 * know it, nothing happens. */
tessera_status convert_go_on(const struct convert_report *report, tessera_error *error) {
    if (report->stop == NULL || !report->stop()) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_CANCELLED, "stopped on request");
}

void convert_forget(const struct tensor *tensor) {
#ifdef MADV_PAGEOUT
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)tensor->data, end = begin + tensor_bytes(tensor);
    begin = begin / page * page;
    if (end - begin >= page) madvise((void *)begin, end - begin, MADV_PAGEOUT);
#endif
}
