# The autoencoder over ranks against one rank; "large" measures the memory of 4096 x 4096.
add_executable(test_autoencoder parallel/test_autoencoder.c)
target_include_directories(test_autoencoder PRIVATE . models)
target_link_libraries(test_autoencoder room_models)
foreach(ranks 1 2 3 4 8)
  add_test(NAME parallel/autoencoder-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:test_autoencoder>
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(parallel/autoencoder-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
add_test(NAME parallel/autoencoder-large COMMAND ${MPIEXEC_EXECUTABLE} -n 4 $<TARGET_FILE:test_autoencoder> large
         WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(parallel/autoencoder-large PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
