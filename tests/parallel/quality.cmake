# What parts lose that know the others late: PipeFusion with the embedded transformer, displaced
# patches with the embedded U-Net. The measure is that of bench/quality.c; quality_cells makes cells
# of docs/quality.md again, four pictures of each, or all with `make soak`.
add_executable(test_quality parallel/test_quality.c)
add_executable(test_quality_cells parallel/test_quality_cells.c)
foreach(program test_quality test_quality_cells)
  target_include_directories(${program} PRIVATE .)
endforeach()
target_link_libraries(test_quality quality)
target_link_libraries(test_quality_cells quality_settings)
add_test(NAME parallel/quality COMMAND test_quality WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(parallel/quality PROPERTIES TIMEOUT 900)
foreach(pictures 4 24)
  add_test(NAME parallel/quality_cells-${pictures} COMMAND ${MPIEXEC_EXECUTABLE} -n 2 $<TARGET_FILE:test_quality_cells> ${pictures}
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(parallel/quality_cells-${pictures} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 1800)
endforeach()
add_test(NAME parallel/quality_grid COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/test_quality_grid.sh ${CMAKE_BINARY_DIR} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(parallel/quality_grid PROPERTIES TIMEOUT 900)
add_test(NAME parallel/quality_tables COMMAND sh bench/quality_tables.sh check WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
