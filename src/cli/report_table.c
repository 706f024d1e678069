/* Text and tables of `tessera report`; see report_page.h. */
#include "cli/report_page.h"

void report_name(const struct result *row, char name[REPORT_NAME]) {
    int n = snprintf(name, REPORT_NAME, "%.48s", row->strategy);
    if (row->sync_mode[0] != 0) n += snprintf(name + n, REPORT_NAME - (size_t)n, ", %.48s", row->sync_mode);
    if (row->option[0] != 0) snprintf(name + n, REPORT_NAME - (size_t)n, ", %.48s", row->option);
}

void report_text(FILE *out, const char *text) {
    for (const char *c = text; *c != 0; c++) {
        const char *escaped = *c == '<' ? "&lt;" : *c == '>' ? "&gt;" : *c == '&' ? "&amp;" : *c == '"' ? "&quot;" : NULL;
        if (escaped != NULL)
            fputs(escaped, out);
        else
            fputc(*c, out);
    }
}

void report_table(FILE *out, const struct report_section *section) {
    char name[REPORT_NAME];
    fprintf(out, "<div class=\"wide\"><table>\n<tr><th>setting</th><th>patches</th><th>warm-up</th><th>picture</th><th>PSNR, mean</th>"
                 "<th>lowest</th><th>SSIM, mean</th><th>lowest</th></tr>\n");
    for (int i = 0; i < section->count; i++) {
        const struct result *row = section->rows[i];
        const double *m = row->metrics;
        report_name(row, name);
        fprintf(out, "<tr><td>");
        report_text(out, name);
        fprintf(out, "</td><td>%d</td><td>", row->patches);
        if (row->warmup >= 0) fprintf(out, "%d", row->warmup);
        fprintf(out, "</td><td>%d x %d</td><td>%.1f</td><td>%.1f</td><td>%.3f</td><td>%.3f</td></tr>\n", row->width, row->height,
                m[RESULT_PSNR_MEAN], m[RESULT_PSNR_LOWEST], m[RESULT_SSIM_MEAN], m[RESULT_SSIM_LOWEST]);
    }
    fprintf(out, "</table></div>\n");
}
