# Each test of tests/comm again under mpirun, and the tests that need several processes by their nature.
set(mpi_environment OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
    ASAN_OPTIONS=fast_unwind_on_malloc=0  # whole stacks, which the suppressions need: MPI unloads its plugins
    LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_SOURCE_DIR}/comm/lsan.supp
    TSAN_OPTIONS=suppressions=${CMAKE_CURRENT_SOURCE_DIR}/comm/tsan.supp:ignore_noninstrumented_modules=1)
foreach(test test_comm test_collectives test_mesh test_ping test_jobs)
  foreach(ranks 1 2 3 4 8)
    add_test(NAME comm/${test}-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:${test}>
             WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(comm/${test}-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
  endforeach()
endforeach()
add_executable(comm_rank comm/rank.c)  # what the scripts run
target_include_directories(comm_rank PRIVATE .)
target_link_libraries(comm_rank room_comm)
add_test(NAME comm/failure COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/comm/test_failure.sh ${CMAKE_BINARY_DIR}/tests
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
add_test(NAME comm/delay COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/comm/test_delay.sh ${CMAKE_BINARY_DIR}/tests
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
add_test(NAME comm/network COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/comm/test_network.sh ${CMAKE_BINARY_DIR}/tests
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
# Ranks that are stopped or killed while they start: a few trials here, many with `make soak`.
foreach(trials 6 200)
  add_test(NAME comm/start-${trials} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/comm/test_start.sh $<TARGET_FILE:tessera> ${trials}
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(comm/start-${trials} PROPERTIES ENVIRONMENT "${mpi_environment};MPIEXEC=${MPIEXEC_EXECUTABLE}" TIMEOUT 3600)
endforeach()
set_tests_properties(comm/failure comm/delay comm/network PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900 SKIP_RETURN_CODE 77)
