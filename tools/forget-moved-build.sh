#!/bin/sh
# Removes a build folder that was configured at another path, which CMake refuses to use: the
# checkout was moved or copied. usage: forget-moved-build.sh FOLDER, in the repository root.
set -eu
folder=$1
[ -e "$folder/CMakeCache.txt" ] || exit 0
value_of() { sed -n "s/^$1:[A-Z]*=//p" "$folder/CMakeCache.txt"; }
place_of() { (cd "$1" 2>/dev/null && pwd -P) || echo "$1"; }
[ "$(place_of "$(value_of CMAKE_HOME_DIRECTORY)")" != "$(pwd -P)" ] || [ "$(place_of "$(value_of CMAKE_CACHEFILE_DIR)")" != "$(cd "$folder" && pwd -P)" ] || exit 0
echo "$folder was configured in $(value_of CMAKE_CACHEFILE_DIR): building anew"
rm -rf "$folder"
