/* A plan as a drawing: a box for each host, a circle for each rank, and a line between two that
 * send to each other in a step.
 *
 *     +-----------+     +-----------+
 *     |  0 === 1  |-----|  2 === 3  |        width: 1 + log2(bytes / 1024), at most 12
 *     +-----------+     +-----------+
 *
 * Lines of the ring and the pipeline go from one rank to the next. Lines of the other axes go
 * between all pairs of a group, each with its share of the bytes. */
#include <math.h>

#include "parallel/plan.h"

enum { MOST_RANKS = 64, COLUMNS = 8, CELL = 90, MARGIN = 30, TITLE = 60, LEGEND = 26, RADIUS = 20 };

static const char *const colours[MESH_AXES] = {"#888888", "#d62728", "#9467bd", "#ff7f0e", "#2ca02c", "#1f77b4", "#17becf"};

static int columns_of(const struct plan_machine *machine, int ranks) {
    int columns = machine->per_host > 1 && machine->per_host < COLUMNS ? COLUMNS / machine->per_host * machine->per_host : COLUMNS;
    return ranks < columns ? ranks : columns;
}

struct place {
    double x, y;
};

static struct place place_of(const struct plan_machine *machine, int ranks, int rank) {
    int columns = columns_of(machine, ranks);
    return (struct place){MARGIN + CELL * (rank % columns + 0.5), TITLE + CELL * (rank / columns + 0.5)};
}

/* A rank's neighbour along an axis, `steps` on. */
static int peer_of(const struct plan_mesh *mesh, int rank, enum mesh_axis axis, int steps) {
    int stride = plan_stride(mesh, axis), degree = mesh->degrees[axis], at = plan_coordinate(mesh, rank, axis);
    return rank + ((at + steps) % degree - at) * stride;
}

static bool goes_round(enum mesh_axis axis) {
    return axis == MESH_RING || axis == MESH_PIPEFUSION;
}

static void draw_line(FILE *out, const struct plan_machine *machine, int ranks, int from, int to, enum mesh_axis axis, double bytes) {
    struct place a = place_of(machine, ranks, from), b = place_of(machine, ranks, to);
    double width = fmin(fmax(1.0 + log2(bytes / 1024.0), 1.0), 12.0), dx = b.x - a.x, dy = b.y - a.y;
    double bend = 0.12 + 0.06 * (int)axis; /* so that lines of different axes between the same two do not hide each other */
    fprintf(out,
            "  <path d=\"M %.1f %.1f Q %.1f %.1f %.1f %.1f\" fill=\"none\" stroke=\"%s\" stroke-width=\"%.1f\" stroke-opacity=\"0.6\">"
            "<title>%s, %d to %d: %.0f bytes a step</title></path>\n",
            a.x, a.y, (a.x + b.x) / 2 - dy * bend, (a.y + b.y) / 2 + dx * bend, b.x, b.y, colours[axis], width, mesh_axis_name(axis), from,
            to, bytes);
}

static void draw_lines(FILE *out, const struct plan_model *model, const struct plan_machine *machine, const struct plan_mesh *mesh,
                       int ranks) {
    for (int r = 0; r < ranks; r++) {
        struct plan_bytes sent = plan_step_bytes(model, mesh, r);
        for (int a = 0; a < MESH_AXES; a++) {
            int degree = mesh->degrees[a], peers = goes_round((enum mesh_axis)a) ? 1 : degree - 1;
            for (int k = 1; degree > 1 && k <= peers; k++) {
                int peer = peer_of(mesh, r, (enum mesh_axis)a, k);
                bool once = goes_round((enum mesh_axis)a) || r < peer; /* one line for both ways */
                if (peer < ranks && once && sent.axis[a] > 0)
                    draw_line(out, machine, ranks, r, peer, (enum mesh_axis)a, (double)sent.axis[a] / peers);
            }
        }
    }
}

static void draw_hosts(FILE *out, const struct plan_machine *machine, int ranks) {
    int columns = columns_of(machine, ranks), per_host = machine->per_host;
    for (int first = 0; first < ranks; first += per_host) {
        for (int r = first; r < ranks && r < first + per_host; r += columns - r % columns) { /* a box for each row of a large host */
            int end = r - r % columns + columns, count = (end < first + per_host ? end : first + per_host) - r;
            struct place at = place_of(machine, ranks, r);
            fprintf(out,
                    "  <rect x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"%d\" rx=\"8\" fill=\"#f4f4f4\" stroke=\"#bbbbbb\"><title>host "
                    "%d</title></rect>\n",
                    at.x - CELL / 2.0 + 4, at.y - CELL / 2.0 + 4, (r + count > ranks ? ranks - r : count) * CELL - 8, CELL - 8,
                    first / per_host);
        }
    }
}

static void draw_legend(FILE *out, const struct plan_mesh *mesh, double y) {
    int drawn = 0;
    for (int a = 0; a < MESH_AXES; a++) {
        if (mesh->degrees[a] < 2 || a == MESH_DATA) continue;
        fprintf(out, "  <text x=\"%d\" y=\"%.1f\" fill=\"%s\">%s %d</text>\n", MARGIN + 110 * drawn++, y, colours[a],
                mesh_axis_name((enum mesh_axis)a), mesh->degrees[a]);
    }
}

void plan_draw(FILE *out, const struct plan_model *model, const struct plan_machine *machine, const struct plan *plan) {
    const struct plan_mesh *mesh = &plan->mesh;
    int all = plan_mesh_ranks(mesh), ranks = all < MOST_RANKS ? all : MOST_RANKS, columns = columns_of(machine, ranks);
    int rows = (ranks + columns - 1) / columns, width = 2 * MARGIN + (columns > 6 ? columns : 6) * CELL;
    char name[128];
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"14\">\n"
            "  <rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
            "  <text x=\"%d\" y=\"24\" font-size=\"17\">%s: %s</text>\n"
            "  <text x=\"%d\" y=\"46\">%.3g s a step, limited by %s; a line's width is the logarithm of its bytes%s</text>\n",
            width, TITLE + rows * CELL + 2 * LEGEND, MARGIN, model->name, plan_mesh_text(mesh, name, sizeof name), MARGIN,
            plan->step_seconds, plan_limit_name(plan->limit), all > ranks ? "; the first 64 ranks" : "");
    draw_hosts(out, machine, ranks);
    draw_lines(out, model, machine, mesh, ranks);
    for (int r = 0; r < ranks; r++) {
        struct place at = place_of(machine, ranks, r);
        fprintf(out,
                "  <circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\" fill=\"white\" stroke=\"black\"/><text x=\"%.1f\" y=\"%.1f\" "
                "text-anchor=\"middle\">%d</text>\n",
                at.x, at.y, RADIUS, at.x, at.y + 5, r);
    }
    draw_legend(out, mesh, TITLE + rows * CELL + LEGEND);
    fprintf(out, "</svg>\n");
}
