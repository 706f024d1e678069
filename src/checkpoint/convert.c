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

/* MADV_PAGEOUT loses nothing, also where the tensor is a copy in memory; where the system does not know it, nothing happens. */
void convert_forget(const struct tensor *tensor) {
#ifdef MADV_PAGEOUT
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)tensor->data, end = begin + tensor_bytes(tensor);
    begin = begin / page * page;
    if (end - begin >= page) madvise((void *)begin, end - begin, MADV_PAGEOUT);
#endif
}
