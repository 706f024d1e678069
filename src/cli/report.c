/* `tessera report`: results as one HTML page that needs no network: tables, plots as SVG, picture
 * grids inside as PNG.
 *
 *     RESULTS.csv (metrics/results.h) -> sections by scheduler and steps -> report_page.h's pieces -> report.html
 *
 * Everything that came from a file is escaped; the page has no scripts. Left out: pictures other
 * than PNG. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "cli/command.h"
#include "cli/report_page.h"

enum report_option { REPORT_OUTPUT, REPORT_PICTURES, REPORT_TITLE, REPORT_OPTION_COUNT };

static const struct option report_options[REPORT_OPTION_COUNT] = {
    [REPORT_OUTPUT] =
        {.name = "output", .letter = 'o', .type = OPTION_TEXT, .placeholder = "FILE.html", .help = "what to write (default report.html)"},
    [REPORT_PICTURES] = {.name = "pictures",
                         .type = OPTION_TEXTS,
                         .placeholder = "FILE.png",
                         .help = "picture grids to put on the page, in this order"},
    [REPORT_TITLE] = {.name = "title", .type = OPTION_TEXT, .placeholder = "TEXT", .help = "the page's title (default: the file's name)"},
};

enum { RESULTS_BYTES_MOST = 1 << 26, PICTURE_BYTES_MOST = 1 << 26 };

static const char style[] =
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:auto;padding:1rem;color-scheme:light dark}"
    "figure{margin:1rem 0}svg,img{width:100%;height:auto}svg{font:13px system-ui,sans-serif;fill:currentColor;max-width:40rem}"
    "ul{list-style:none;padding:0}i{display:inline-block;width:1.6rem;vertical-align:middle}"
    ".wide{overflow-x:auto}table{border-collapse:collapse}td,th{padding:.2rem .6rem;border-bottom:1px solid #8886;"
    "text-align:right;white-space:nowrap}td:first-child,th:first-child{text-align:left}";

static void put_base64(FILE *out, const unsigned char *data, size_t length) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i += 3) {
        size_t n = length - i < 3 ? length - i : 3;
        unsigned triple = (unsigned)data[i] << 16 | (n > 1 ? (unsigned)data[i + 1] << 8 : 0) | (n > 2 ? data[i + 2] : 0);
        char four[4] = {digits[triple >> 18], digits[triple >> 12 & 63], n > 1 ? digits[triple >> 6 & 63] : '=',
                        n > 2 ? digits[triple & 63] : '='};
        fwrite(four, 1, sizeof four, out);
    }
}

static tessera_status put_picture(FILE *out, const char *path, tessera_error *error) {
    static const char signature[] = "\x89PNG\r\n\x1a\n";
    char *data = NULL;
    size_t length = 0;
    TRY(file_read(path, PICTURE_BYTES_MOST, &data, &length, error));
    bool is_png = length > sizeof signature && memcmp(data, signature, sizeof signature - 1) == 0;
    if (is_png) {
        const char *slash = strrchr(path, '/');
        fprintf(out, "<figure><img alt=\"\" src=\"data:image/png;base64,");
        put_base64(out, (const unsigned char *)data, length);
        fprintf(out, "\"><figcaption>");
        report_text(out, slash != NULL ? slash + 1 : path);
        fprintf(out, "</figcaption></figure>\n");
    }
    free(data);
    return is_png ? TESSERA_OK : error_set(error, TESSERA_ERROR_FORMAT, "--pictures %s: is no PNG file", path);
}

/* The rows that share a scheduler and steps with row `first`, none of which comes before it; false
 * where one does. */
static bool take_section(const struct results *results, int first, struct report_section *section) {
    const struct result *head = &results->rows[first];
    section->scheduler = head->scheduler, section->steps = head->steps, section->count = 0;
    for (int i = 0; i < results->count; i++) {
        const struct result *row = &results->rows[i];
        if (row->steps != head->steps || strcmp(row->scheduler, head->scheduler) != 0) continue;
        if (i < first) return false;
        section->rows[section->count++] = row;
    }
    return true;
}

static void put_section(FILE *out, const struct report_section *section) {
    fprintf(out, "<h2>");
    report_text(out, section->scheduler);
    fprintf(out, ", %d steps</h2>\n", section->steps);
    report_plot_patches(out, section, RESULT_PSNR_MEAN);
    report_plot_patches(out, section, RESULT_SSIM_MEAN);
    report_plot_warmup(out, section, RESULT_PSNR_MEAN);
    report_plot_warmup(out, section, RESULT_SSIM_MEAN);
    report_table(out, section);
}

static tessera_status put_page(FILE *out, const char *title, const struct results *results, const struct option_value *pictures,
                               tessera_error *error) {
    struct report_section section = {.rows = malloc((size_t)results->count * sizeof *section.rows)};
    tessera_status status = section.rows != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the report");
    fprintf(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, "
                 "initial-scale=1\">\n<title>");
    report_text(out, title);
    fprintf(out, "</title>\n<style>%s</style></head><body>\n<h1>", style);
    report_text(out, title);
    fprintf(
        out,
        "</h1>\n<p>How near pictures come to those of one process: PSNR in dB and SSIM, mean and lowest of %d pictures a setting. Higher "
        "is better; an SSIM of 1 is the same picture.</p>\n",
        results->rows[0].pictures);
    for (int i = 0; i < pictures->count && status == TESSERA_OK; i++) status = put_picture(out, pictures->texts[i], error);
    for (int i = 0; i < results->count && status == TESSERA_OK; i++)
        if (take_section(results, i, &section)) put_section(out, &section);
    fprintf(out, "</body></html>\n");
    free(section.rows);
    return status;
}

static tessera_status write_report(const char *path, const struct option_value *v, tessera_error *error) {
    struct results results = {0};
    struct file_output output;
    char *text = NULL;
    size_t length = 0;
    const char *name = v[REPORT_OUTPUT].given ? v[REPORT_OUTPUT].text : "report.html";
    TRY(file_read(path, RESULTS_BYTES_MOST, &text, &length, error));
    results.text = text;
    tessera_status status = strlen(text) == length ? results_parse(path, text, &results, error)
                                                   : error_set(error, TESSERA_ERROR_FORMAT, "%s: is no text: it has bytes of 0", path);
    if (status == TESSERA_OK) status = file_output_open(name, &output, error);
    if (status == TESSERA_OK) {
        status = put_page(output.stream, v[REPORT_TITLE].given ? v[REPORT_TITLE].text : path, &results, &v[REPORT_PICTURES], error);
        if (status == TESSERA_OK)
            status = file_output_commit(&output, error);
        else
            file_output_discard(&output);
    }
    results_free(&results);
    if (status == TESSERA_OK) printf("%s\n", name);
    return status;
}

static int run_report(const char *path, struct option_value *values) {
    tessera_error error = {0};
    bool usage = path == NULL;
    tessera_status status =
        usage ? error_set(&error, TESSERA_ERROR_ARGUMENT, "which results? tessera report RESULTS.csv") : write_report(path, values, &error);
    return status == TESSERA_OK ? EXIT_DONE : command_fail(&error, usage);
}

const struct command report_command = {
    .name = "report",
    .usage = "report RESULTS.csv [OPTIONS]",
    .summary = "results of make quality as one HTML page with tables, plots and pictures",
    .details =
        "RESULTS.csv has a line for each setting: docs/quality.md says how to make it. The page needs no network and fits a phone.\n",
    .examples = "  tessera report docs/quality.csv -o quality.html --pictures docs/images/quality-unet.png\n",
    .options = report_options,
    .option_count = REPORT_OPTION_COUNT,
    .takes_path = true,
    .run = run_report,
};
