#!/bin/sh
# The tables of docs/quality.md from docs/quality.csv, between the marks "<!-- table NAME -->" and
# "<!-- end -->".
#   bench/quality_tables.sh write     puts them there
#   bench/quality_tables.sh check     fails if they are not what the results say
set -eu
page=docs/quality.md results=docs/quality.csv
made=$(mktemp)
trap 'rm -f "$made"' EXIT

# Columns of the results: 1 scheduler, 2 steps, 3 width, 4 height, 5 patches, 6 strategy, 7
# sync_mode, 8 warmup, 9 option, 11 and 12 PSNR, 13 and 14 SSIM. A cell is "PSNR mean, lowest (SSIM
# mean)"; what was not measured is "-".
awk -F, -v results="$results" '
function cell(key) { return key in figures ? figures[key] : "-" }
function row(name, scheduler, steps, rest,    n) {
    printf "| %s |", name
    for (n = 2; n <= 8; n *= 2) printf " %s |", cell(scheduler "," steps "," (n < 8 ? 128 : 256) "," n "," rest)
    printf "\n"
}
function head(first) { printf "| %s | 2 patches | 4 patches | 8 patches |\n|---|---|---|---|\n", first }
function modes(scheduler, steps,    m, w) {
    head("sync mode, warm-up")
    for (m = 1; m <= num_modes; m++)
        for (w = 1; w <= num_warmups; w++)
            if (mode[m] != "full_sync" || warmup[w] == 0) row("`" mode[m] "`, " warmup[w], scheduler, steps, "patch," mode[m] "," warmup[w] ",")
    row("`corrected_async_gn`, 4, `--published-group-norm`", scheduler, steps, "patch,corrected_async_gn,4,published_group_norm")
    for (m = 1; m <= num_schemes; m++) row("naive patches, `--split-scheme " scheme[m] "`", scheduler, steps, "naive_patch,,," scheme[m])
}
function samplers(    s, t) {
    head("sampler, steps")
    for (s = 1; s <= num_samplers; s++)
        for (t = 1; t <= num_steps; t++) row(sampler[s] ", " step[t], sampler[s], step[t], "patch,corrected_async_gn,4,")
}
# A patch of a picture of `height` pixels has height / 8 / n latent rows.
function high_row(n, height,    m) {
    printf "| %d of 128x%d | %d |", n, height, height / 8 / n
    for (m = 1; m <= 3; m++) printf " %s |", cell("DDIMScheduler,20," height "," n ",patch," mode[m] ",4,")
    printf "\n"
}
function heights() {
    printf "| patches | latent rows each | `%s` | `%s` | `%s` |\n|---|---|---|---|---|\n", mode[1], mode[2], mode[3]
    high_row(2, 256); high_row(2, 128); high_row(4, 256); high_row(4, 128); high_row(8, 512); high_row(8, 256)
}
function others() {
    print "| way | PSNR mean, lowest (SSIM mean) |\n|---|---|"
    print "| ring, 2 ranks | " cell("DDIMScheduler,20,128,2,ring,,,") " |"
    print "| PipeFusion, 2 stages, one patch | " cell("DDIMScheduler,20,128,2,pipefusion,,,one_part") " |"
    print "| weights as q8_0 | " cell("DDIMScheduler,20,128,1,weights,,,q8_0") " |"
    print "| weights as q4_0 | " cell("DDIMScheduler,20,128,1,weights,,,q4_0") " |"
}
BEGIN {
    while ((getline line < results) > 0) {
        split(line, f, ",")
        figures[f[1] "," f[2] "," f[4] "," f[5] "," f[6] "," f[7] "," f[8] "," f[9]] = sprintf("%.1f, %.1f (%.3f)", f[11], f[12], f[13])
    }
    num_modes = split("corrected_async_gn stale_gn sync_gn separate_gn no_sync full_sync", mode, " ")
    num_warmups = split("0 1 4", warmup, " ")
    num_schemes = split("row col alternate", scheme, " ")
    num_samplers = split("DDIMScheduler EulerDiscreteScheduler DPMSolverMultistepScheduler", sampler, " ")
    num_steps = split("10 20 50", step, " ")
}
/^<!-- end -->/ { inside = 0 }
!inside { print }
/^<!-- table / {
    inside = 1
    if ($0 ~ /modes/) modes("DDIMScheduler", 20)
    else if ($0 ~ /samplers/) samplers()
    else if ($0 ~ /heights/) heights()
    else if ($0 ~ /others/) others()
}' "$page" >"$made"

case ${1:-} in
write) cat "$made" >"$page" ;;
check) diff "$page" "$made" && echo "the tables of $page are those of $results" ;;
*) sed -n '2,4s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
