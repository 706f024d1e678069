#!/bin/sh
# tessera report: the page that it writes, what can be wrong, and the page in headless Chromium at a
# phone's width without a network.
#   sh test_report.sh PROGRAM          in the repository root
program=$(realpath "$1") root=$PWD
. tests/check.sh
cd "$work" || exit 1
cat >results.csv <<'CSV'
scheduler,steps,width,height,patches,strategy,sync_mode,warmup,option,pictures,psnr_mean,psnr_lowest,ssim_mean,ssim_lowest
DDIMScheduler,20,128,128,2,patch,stale_gn,0,,24,41.5,38.25,0.991,0.982
DDIMScheduler,20,128,128,2,patch,stale_gn,4,,24,42.5,39.25,0.992,0.983
DDIMScheduler,20,128,128,4,patch,stale_gn,4,,24,37.5,33.25,0.972,0.953
DDIMScheduler,20,128,128,2,patch,full_sync,0,,24,137,131,1,1
DDIMScheduler,20,128,128,2,naive_patch,,,<b>row</b>,24,12,9,0.4,0.3
EulerDiscreteScheduler,10,128,128,2,patch,no_sync,4,,24,27,21,0.8,0.7
CSV
picture=$root/tests/emoji-unet-pictures/01.png

run 0 report results.csv --pictures "$picture" --title "A <title>" -o page.html; prints page.html
page() { check "the page has $2" [ "$(grep -c -e "$1" page.html)" -ge 1 ]; }
page '<td>patch, stale_gn</td><td>4</td><td>4</td><td>128 x 128</td><td>37\.5</td><td>33\.2</td><td>0\.972</td><td>0\.953</td>' "a row of each setting"
page 'naive_patch, &lt;b&gt;row&lt;/b&gt;' "text of the file, escaped"
page '<title>A &lt;title&gt;</title>' "the title, escaped"
page 'patch, full_sync: exact up to rounding' "exact settings in the legend"
page '<h2>EulerDiscreteScheduler, 10 steps</h2>' "a section for each scheduler"
check "the picture is inside" sh -c "sed -n 's/.*base64,\([^\"]*\)\".*/\1/p' page.html | base64 -d | cmp - '$picture'"
check "nothing comes from elsewhere" sh -c "! grep -q -e 'http' -e '<script' -e '<link' -e 'url(' page.html"
run 0 report results.csv; there report.html

run 2 report; says "which results"
run 1 report nothing.csv; says "nothing.csv"
run 1 report results.csv --pictures results.csv -o no.html; says "is no PNG"
check "no page is left" [ ! -e no.html ]
echo "a,b" >bad.csv
run 1 report bad.csv; says 'no column "scheduler"'

browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || browser=
if [ -z "$browser" ]; then
    echo "skip  the page in a browser: there is no chromium"
    exit $failed
fi
# The page has no scripts; this copy has one, which asks the browser what it made of it.
cat page.html - >asked.html <<'HTML'
<script>
const wide = document.documentElement.scrollWidth > innerWidth, pictures = [...document.images].map(i => i.naturalWidth);
const from = performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length;
document.body.append(`svg ${document.querySelectorAll("svg").length}, tables ${document.querySelectorAll("table").length}, ` +
    `pictures ${pictures}, lines ${document.querySelectorAll("circle").length}, wider than the window ${wide}, loaded ${from}`);
</script>
HTML
timeout 120 "$browser" --headless --no-sandbox --disable-gpu --host-resolver-rules="MAP * ~NOTFOUND" --user-data-dir="$work/profile" \
    --window-size=390,800 --dump-dom "file://$work/asked.html" >dom.html 2>browser.err
check "the browser draws the page" grep -q "svg 8, tables 2, pictures 128, lines 16, wider than the window false, loaded 0" dom.html
exit $failed
