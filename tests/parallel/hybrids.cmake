# Every exact hybrid of the denoisers against one rank: a covering set of world sizes with the other tests, all with `make test-hybrids`.
add_executable(test_hybrids parallel/test_hybrids.c)
target_include_directories(test_hybrids PRIVATE . models)
target_link_libraries(test_hybrids room_models)
file(GLOB hybrid_cases RELATIVE ${PROJECT_SOURCE_DIR} cases/sd3 cases/sd35)
foreach(ranks 3 4)
  add_test(NAME parallel/hybrids-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:test_hybrids> ${hybrid_cases}
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(parallel/hybrids-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 300)
endforeach()
add_custom_target(run_hybrids DEPENDS test_hybrids)
foreach(ranks 1 2 3 4 5 6 7 8)
  add_custom_command(TARGET run_hybrids POST_BUILD WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                     COMMAND ${CMAKE_COMMAND} -E env ${mpi_environment} ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:test_hybrids> ${hybrid_cases})
endforeach()
