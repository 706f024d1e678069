#!/bin/sh
# What `make install` leaves behind, as somebody who has only that: sh test_install.sh BUILD, run in
# the repository root. Installs below a folder of its own, looks at what is exported, builds
# examples/generate.c and the programs of docs/library.md by pkg-config, shared and static, and
# compares the picture with the program's own. CFLAGS are added to each compilation. A line per
# check; exits 1 if one failed.
build=$1 root=$PWD
. tests/check.sh
prefix=$work/prefix
unset TESSERA_DATA_DIR

installed() { check "$1 is installed" test -s "$prefix/$1"; }

check "install" cmake --install "$build" --prefix "$prefix"
[ $failed = 0 ] || exit 1
pc=$(find "$prefix" -name tessera.pc)
libraries=$(dirname "$(dirname "$pc")")
PKG_CONFIG_PATH=$(dirname "$pc") LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export PKG_CONFIG_PATH LD_LIBRARY_PATH
version=$(sed -n 's/.*define TESSERA_VERSION "\(.*\)"/\1/p' include/tessera.h)
functions=$(grep -oh 'tessera_[a-z0-9_]*(' include/tessera.h include/tessera_files.h include/tessera_plan.h include/tessera_stages.h include/tessera_workers.h | tr -d '(' | sort -u)

for header in include/*.h; do
    installed "$header"
done
for file in bin/tessera share/man/man1/tessera.1 share/man/man3/libtessera.3 share/tessera/models/emoji/model_index.json \
    share/tessera/models/emoji-unet/vae/diffusion_pytorch_model.safetensors; do
    installed "$file"
done
check "files are installed unpacked" test -z "$(find "$prefix" -name '*.xz')"
check "libtessera.so.$version has the soname libtessera.so.${version%%.*}" \
    sh -c "readelf -d '$libraries/libtessera.so.$version' | grep -q 'soname: .libtessera.so.${version%%.*}]'"
check "pkg-config knows version $version" test "$(pkg-config --modversion tessera)" = "$version"

# Only the interface can be seen, and all of it.
nm -D --defined-only "$libraries/libtessera.so" | awk '{ print $3 }' | sort -u >"$work/shared"
nm -g --defined-only "$libraries/libtessera.a" | awk 'NF == 3 { print $3 }' | sort -u >"$work/static"
for kind in shared static; do
    check "the $kind library exports nothing but tessera_*" sh -c "! grep -v '^tessera_' '$work/$kind'"
    for name in $functions; do
        grep -qx "$name" "$work/$kind" || check "the $kind library exports $name" false
    done
done
for name in $functions; do
    grep -q "$name" "$prefix/share/man/man3/libtessera.3" || check "libtessera(3) tells of $name" false
done
for option in $("$prefix/bin/tessera" help-all generate | sed -n 's/^  .*\(--[a-z0-9-]*\).*/\1/p'); do
    sed 's/\\-/-/g; s/\\:/ /g' "$prefix/share/man/man1/tessera.1" | grep -q -e "$option" || check "tessera(1) tells of $option" false
done
for file in bash-completion/completions/tessera zsh/site-functions/_tessera fish/vendor_completions.d/tessera.fish; do
    check "share/$file completes options" grep -q guidance-scale "$prefix/share/$file"
done
printf '#include <tessera_%s.h>\n' files plan stages workers >"$work/header.cc"
check "a C++ compiler takes the headers" \
    sh -c "c++ -std=c++11 -pedantic -Werror \$(pkg-config --cflags tessera) -fsyntax-only '$work/header.cc'"

# The example, in fewer than 80 lines, outside the source tree.
cp examples/generate.c examples/Makefile "$work"
check "generate.c has fewer than 80 lines" test "$(wc -l <examples/generate.c)" -lt 80
cd "$work" || exit 1
models=$(pkg-config --variable=models tessera)
check "the example compiles" make generate CFLAGS="-Werror $CFLAGS"
check "the example draws" ./generate "$models/emoji" "a lion on a blue background" example.png 2 4
check "the program draws" "$prefix/bin/tessera" generate --prompt "a lion on a blue background" --seed 2 --steps 4 --no-preview -o lion.png
check "it draws with the other embedded model" "$prefix/bin/tessera" generate --model emoji-unet --prompt "a lion" --steps 1 --no-preview -o unet.png
check "example and program draw the same" "$build/tests/same_picture" lion.png example.png
check "the example draws on two ranks" timeout 300 "${MPIEXEC:-mpirun}" -n 2 --oversubscribe ./generate emoji "a lion" two.png 2 2
check "it writes one picture" "$prefix/bin/tessera" inspect two.png

# A CMake project, as docs/library.md has it.
mkdir cmake-client
awk '/^```cmake$/ { inside = 1; next } /^```/ { inside = 0 } inside' "$root/docs/library.md" >cmake-client/CMakeLists.txt
awk '/^```c$/ && ++number == 1 { inside = 1; next } /^```/ { inside = 0 } inside' "$root/docs/library.md" >cmake-client/client.c
check "a CMake project finds the library" sh -c "cmake -DCMAKE_C_FLAGS='$CFLAGS' -S cmake-client -B cmake-client/build && cmake --build cmake-client/build"
check "its program draws" ./cmake-client/build/client "$models/emoji"

# Its static twin: nothing of libtessera is left to load.
others=$(pkg-config --static --libs tessera | sed 's/-ltessera//')
check "it compiles with libtessera.a" \
    sh -c "${CC:-cc} -std=c11 $CFLAGS generate.c \$(pkg-config --cflags tessera) '$libraries/libtessera.a' $others -o static"
check "it loads no libtessera.so" sh -c "! ldd static | grep libtessera"
check "it draws" ./static "$models/emoji" "a lion on a blue background" static.png 2 4
check "it draws the same" cmp example.png static.png

# Errors and Ctrl-C: a message, status 1, no file.
./generate no/such/model a none.png 2>err
check "a model that is not there: status 1" test $? -eq 1
says "no/such/model: no such folder"
./generate "$models/emoji" a none.png 1 0 2>err
check "no steps: status 1" test $? -eq 1
says "steps: 0"
./generate "$models/emoji" a none.png 1 10000 2>err &
process=$!
wait_until grep -q denoise err
kill -INT $process
wait $process
check "Ctrl-C: status 1" test $? -eq 1
says "stopped on request"
check "no picture was written" test ! -e none.png

# The guide's programs: each block of C is one, with the model's folder as its argument.
awk '/^```c$/ { inside = 1; count++; next } /^```/ { inside = 0 } inside { print > ("guide-" count ".c") }' "$root/docs/library.md"
check "the guide has programs" test -e guide-1.c
for source in guide-*.c; do
    check "$source compiles" \
        sh -c "${CC:-cc} -std=c11 -Wall -Wextra -Werror $CFLAGS $source \$(pkg-config --cflags --libs tessera) -lpthread -o ${source%.c}"
    check "$source runs" "./${source%.c}" "$models/emoji"
done
exit $failed
