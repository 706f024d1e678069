/* Plots of `tessera report`: SVG, drawn for a phone's width and scaled by the page.
 *
 * Pictures that equal the exact ones up to rounding have a PSNR far above all others (EXACT_DB and
 * more): they would leave the rest of a plot flat, so they are named in the legend in place of a
 * line. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/report_page.h"

enum { WIDTH = 400, LEFT = 44, RIGHT = 16, TOP = 16, PLOT = 220, POINTS_MOST = 8, LINES_MOST = 24, GRID = 5 };
#define EXACT_DB 80.0

struct line {
    char name[REPORT_NAME];
    double x[POINTS_MOST], y[POINTS_MOST];
    int count;
    bool is_exact;
};

struct plot {
    struct line lines[LINES_MOST];
    int count;
    double x_low, x_high, y_low, y_high;
    const char *x_title, *y_title;
    bool doubling; /* the x axis is of powers of two */
    int decimals;
};

static const char *const colours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2"};
/* Lines that share a colour differ in their dashes, in the plot and in the legend. */
static const struct { const char *dashes, *border; } styles[] = {{"", "solid"}, {"6 3", "dashed"}, {"2 3", "dotted"}};
enum { COLOURS = sizeof colours / sizeof *colours, STYLES = sizeof styles / sizeof *styles };

static struct line *find_line(struct plot *p, const char *name) {
    for (int i = 0; i < p->count; i++)
        if (strcmp(p->lines[i].name, name) == 0) return &p->lines[i];
    if (p->count == LINES_MOST) return NULL;
    struct line *line = &p->lines[p->count++];
    snprintf(line->name, sizeof line->name, "%s", name);
    return line;
}

/* Adds a point; x grows along a line. */
static void add_point(struct plot *p, const char *name, double x, double y, bool is_exact) {
    struct line *line = find_line(p, name);
    if (line == NULL || line->count == POINTS_MOST) return;
    int at = line->count++;
    for (; at > 0 && line->x[at - 1] > x; at--) line->x[at] = line->x[at - 1], line->y[at] = line->y[at - 1];
    line->x[at] = x, line->y[at] = y;
    line->is_exact = line->is_exact || is_exact;
}

/* The ranges that lines cover, rounded outwards. */
static bool find_ranges(struct plot *p) {
    double step = p->decimals > 0 ? 0.05 : 5;
    p->x_low = p->y_low = INFINITY, p->x_high = p->y_high = -INFINITY;
    for (int i = 0; i < p->count; i++)
        for (int j = 0; j < p->lines[i].count && !p->lines[i].is_exact; j++) {
            p->x_low = fmin(p->x_low, p->lines[i].x[j]), p->x_high = fmax(p->x_high, p->lines[i].x[j]);
            p->y_low = fmin(p->y_low, p->lines[i].y[j]), p->y_high = fmax(p->y_high, p->lines[i].y[j]);
        }
    if (p->x_low > p->x_high) return false;
    p->y_low = step * floor(p->y_low / step), p->y_high = step * ceil(p->y_high / step);
    if (p->y_high <= p->y_low) p->y_high = p->y_low + step;
    return true;
}

static double place_x(const struct plot *p, double x) {
    double low = p->doubling ? log2(p->x_low) : p->x_low, high = p->doubling ? log2(p->x_high) : p->x_high, at = p->doubling ? log2(x) : x;
    return LEFT + (high > low ? (at - low) / (high - low) : 0.5) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const struct plot *p, double y) {
    return TOP + (p->y_high - y) / (p->y_high - p->y_low) * PLOT;
}

static void draw_axes(FILE *out, const struct plot *p) {
    for (int i = 0; i <= GRID; i++) {
        double value = p->y_low + (p->y_high - p->y_low) * i / GRID, y = place_y(p, value);
        fprintf(out, "<path d=\"M%d %.1fH%d\" stroke=\"#8886\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.*f</text>\n", LEFT, y,
                WIDTH - RIGHT, LEFT - 6, y + 4, p->decimals, value);
    }
    double last = -1;
    for (double x = p->x_low; x <= p->x_high; x = p->doubling ? 2 * x : x + 1) {
        if (place_x(p, x) - last < 28) continue;
        last = place_x(p, x);
        fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.0f</text>\n", last, TOP + PLOT + 18, x);
    }
    fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", (LEFT + WIDTH - RIGHT) / 2, TOP + PLOT + 36, p->x_title);
}

static void draw_line(FILE *out, const struct plot *p, int i) {
    const struct line *line = &p->lines[i];
    const char *colour = colours[i % COLOURS];
    if (line->is_exact) return;
    fprintf(out, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2.5\" stroke-dasharray=\"%s\" d=\"", colour,
            styles[i / COLOURS % STYLES].dashes);
    for (int j = 0; j < line->count; j++) fprintf(out, "%c%.1f %.1f", j == 0 ? 'M' : 'L', place_x(p, line->x[j]), place_y(p, line->y[j]));
    fprintf(out, "\"/>\n");
    for (int j = 0; j < line->count; j++)
        fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", place_x(p, line->x[j]), place_y(p, line->y[j]), colour);
}

/* Below the plot, as text of the page, which keeps its size on a phone. */
static void write_legend(FILE *out, const struct plot *p) {
    fprintf(out, "<ul>\n");
    for (int i = 0; i < p->count; i++) {
        fprintf(out, "<li><i style=\"border-top:3px %s %s\"></i> ", styles[i / COLOURS % STYLES].border, colours[i % COLOURS]);
        report_text(out, p->lines[i].name);
        fprintf(out, "%s</li>\n", p->lines[i].is_exact ? ": exact up to rounding" : "");
    }
    fprintf(out, "</ul>\n");
}

static void draw(FILE *out, struct plot *p) {
    if (!find_ranges(p)) return;
    fprintf(out, "<figure><figcaption>%s by %s</figcaption>\n<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s by %s\">\n",
            p->y_title, p->x_title, WIDTH, TOP + PLOT + 44, p->y_title, p->x_title);
    draw_axes(out, p);
    for (int i = 0; i < p->count; i++) draw_line(out, p, i);
    fprintf(out, "</svg>\n");
    write_legend(out, p);
    fprintf(out, "</figure>\n");
}

static struct plot new_plot(enum result_metric metric, const char *x_title, bool doubling) {
    static const char *const titles[RESULT_METRICS] = {"PSNR in dB, mean", "PSNR in dB, lowest", "SSIM, mean", "SSIM, lowest"};
    return (struct plot){
        .x_title = x_title, .y_title = titles[metric], .doubling = doubling, .decimals = metric >= RESULT_SSIM_MEAN ? 2 : 0};
}

static bool is_exact(const struct result *row) {
    return row->metrics[RESULT_PSNR_MEAN] >= EXACT_DB;
}

void report_plot_patches(FILE *out, const struct report_section *section, enum result_metric metric) {
    struct plot p = new_plot(metric, "patches, at the longest warm-up", true);
    char name[REPORT_NAME], other[REPORT_NAME];
    for (int i = 0; i < section->count; i++) {
        const struct result *row = section->rows[i];
        bool longest = row->patches > 1;
        report_name(row, name);
        for (int j = 0; j < section->count && longest; j++) {
            report_name(section->rows[j], other);
            longest = strcmp(name, other) != 0 || section->rows[j]->patches != row->patches || section->rows[j]->warmup <= row->warmup;
        }
        if (longest) add_point(&p, name, row->patches, row->metrics[metric], is_exact(row));
    }
    draw(out, &p);
}

void report_plot_warmup(FILE *out, const struct report_section *section, enum result_metric metric) {
    struct plot p = new_plot(metric, "warm-up steps", false);
    char name[REPORT_NAME], line[REPORT_NAME + 32];
    for (int i = 0; i < section->count; i++) {
        const struct result *row = section->rows[i];
        if (row->warmup < 0 || is_exact(row)) continue;
        report_name(row, name);
        snprintf(line, sizeof line, "%s, %d patches", name, row->patches);
        add_point(&p, line, row->warmup, row->metrics[metric], false);
    }
    draw(out, &p);
}
