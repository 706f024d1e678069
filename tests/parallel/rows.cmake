# Layers over a picture that is cut by rows.
add_executable(test_rows parallel/test_rows.c)
target_include_directories(test_rows PRIVATE .)
target_link_libraries(test_rows room_nn)
foreach(ranks 1 2 3 5 8)
  add_test(NAME parallel/rows-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:test_rows> WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(parallel/rows-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
