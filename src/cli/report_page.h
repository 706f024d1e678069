/* The page of `tessera report`: HTML that needs nothing else, in pieces. */
#ifndef TESSERA_CLI_REPORT_PAGE_H
#define TESSERA_CLI_REPORT_PAGE_H

#include <stdio.h>

#include "metrics/results.h"

/* Rows that share a scheduler and a number of steps: a section of the page. */
struct report_section {
    const char *scheduler;
    int steps;
    const struct result **rows; /* [count] */
    int count;
};

/* What a setting is called in tables and legends: "patch, stale_gn", "naive_patch, row". */
enum { REPORT_NAME = 160 };
void report_name(const struct result *row, char name[REPORT_NAME]);

void report_text(FILE *out, const char *text); /* with <, >, & and quotes escaped */
/* An SVG of a metric by the number of patches (at the longest warm-up of each setting), a line for
 * each setting. */
void report_plot_patches(FILE *out, const struct report_section *section, enum result_metric metric);
/* An SVG of a metric by warm-up steps, a line for each setting that has a warm-up. */
void report_plot_warmup(FILE *out, const struct report_section *section, enum result_metric metric);
void report_table(FILE *out, const struct report_section *section);

#endif
