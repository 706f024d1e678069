#!/bin/sh
# A build folder that was configured at another path is removed, any other stays: sh test_moved.sh,
# run in the repository root.
. tests/check.sh
tool=$PWD/tools/forget-moved-build.sh
configured() { # PLACE: a build folder in $PLACE/build, configured there
    mkdir -p "$1/build"
    printf 'CMAKE_CACHEFILE_DIR:INTERNAL=%s/build\nCMAKE_HOME_DIRECTORY:INTERNAL=%s\n' "$1" "$1" >"$1/build/CMakeCache.txt"
}
configured "$work/one"
(cd "$work/one" && sh "$tool" build) >"$work/out"
check "a build folder stays where it is" test -e "$work/one/build/CMakeCache.txt"
check "without a word" test ! -s "$work/out"
cp -r "$work/one" "$work/copy"
mv "$work/one" "$work/two"
for place in two copy; do
    (cd "$work/$place" && sh "$tool" build) >"$work/out"
    check "one of another path is removed ($place)" test ! -e "$work/$place/build"
    check "and said to be" grep -q "configured in $work/one/build" "$work/out"
done
ln -s "$work/two" "$work/link"
configured "$work/two"
(cd "$work/link" && sh "$tool" build)
check "a link to the same place is no other path" test -e "$work/two/build/CMakeCache.txt"
(cd "$work/two" && sh "$tool" none) && check "no folder is no fault" true
exit $failed
