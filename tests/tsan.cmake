# What ThreadSanitizer looks at beside the tests of comm/ and hub/: workers and their clients, a
# program with several threads and models, a picture that two ranks make, and one whose weights a
# thread reads while it is computed. GCC's OpenMP runtime does not tell it where threads meet;
# LLVM's does, through Archer, so this build takes clang (make tsan).
file(GLOB llvm_folders /usr/lib/llvm-*/lib)
find_library(ARCHER_LIBRARY archer PATHS ${llvm_folders} REQUIRED)
set(tsan_environment ${mpi_environment} OMP_TOOL_LIBRARIES=${ARCHER_LIBRARY} OMP_NUM_THREADS=2)
add_executable(test_threads library/test_threads.c)
target_include_directories(test_threads PRIVATE .)
target_link_libraries(test_threads room_pipelines Threads::Threads)
add_test(NAME tsan/threads COMMAND test_threads WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
add_test(NAME tsan/picture COMMAND ${MPIEXEC_EXECUTABLE} -n 2 $<TARGET_FILE:tessera> generate --model models/emoji
         --steps 2 --ring-degree 2 --prompt "a lion" --threads 2 -o ${CMAKE_BINARY_DIR}/tsan.png
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
add_test(NAME tsan/stream COMMAND tessera generate --model models/emoji --offload blocks --steps 2 --prompt "a lion" --threads 2 --overwrite
         -o ${CMAKE_BINARY_DIR}/tsan-stream.png WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(tsan/threads tsan/picture tsan/stream PROPERTIES TIMEOUT 900 ENVIRONMENT "${tsan_environment}")
# A worker computes in a thread that is not the program's first, where the runtime's own locks,
# which are not instrumented, look like races.
set_tests_properties(split/test_server split/test_remote split/test_worker PROPERTIES TIMEOUT 900
                     ENVIRONMENT "${tsan_environment};TSAN_OPTIONS=ignore_noninstrumented_modules=1")
