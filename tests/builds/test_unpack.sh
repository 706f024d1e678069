#!/bin/sh
# Files that the repository keeps as FILE.xz: sh test_unpack.sh, run in the repository root.
. tests/check.sh
pack=$PWD/tools/pack.sh unpack=$PWD/tools/unpack.sh
mkdir -p "$work/a/b"
for size in 1 2 4; do
    seq 1 2000 >"$work/a/b/$size"
    cp "$work/a/b/$size" "$work/whole"
    sh "$pack" $size "$work/a/b/$size"
    check "pack.sh $size leaves the packed file alone" test ! -e "$work/a/b/$size" -a -s "$work/a/b/$size.xz"
done
sh "$unpack" "$work/a" >"$work/out"
check "unpack.sh says how many files it made" grep -q '3 files made' "$work/out"
for size in 1 2 4; do
    check "a file packed with $size comes back" cmp "$work/whole" "$work/a/b/$size"
    check "the SHA-256 of the file is in its .xz ($size)" sh -c "xz --list --verbose '$work/a/b/$size.xz' | grep -q 'SHA-256'"
done
check "a second time nothing is left to do" test -z "$(sh "$unpack" "$work/a")"
echo changed | xz >"$work/a/b/1.xz"
touch -d '1 minute ago' "$work/a/b/1"
sh "$unpack" "$work/a" >"$work/out"
check "a newer .xz replaces the file" grep -q changed "$work/a/b/1"
rm "$work/a/b/2"
printf 'damaged' | dd of="$work/a/b/2.xz" bs=1 seek=100 conv=notrunc 2>"$work/out"
check "a damaged .xz fails" sh -c "! sh '$unpack' '$work/a' 2>'$work/out'"
check "and leaves no file" test "$(ls "$work/a/b" | xargs)" = "1 1.xz 2.xz 4 4.xz"

# In a checkout: git ignores what the build makes, or else people commit it.
if git rev-parse --git-dir >/dev/null 2>&1; then
    git ls-files '*.xz' | sed 's/\.xz$//' >"$work/made"
    git check-ignore --stdin <"$work/made" >"$work/ignored"
    check "files are kept packed" test -s "$work/made"
    check "git ignores what is made from them" cmp "$work/made" "$work/ignored"
    check "and keeps nothing whole that it ignores" test -z "$(git ls-files --cached --ignored --exclude-standard)"
fi
exit $failed
