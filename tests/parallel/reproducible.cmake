# Reproducible kernels: one hash over instruction sets, threads, batches, strips and meshes.
add_executable(test_reproducible_pictures parallel/test_reproducible_pictures.c)
target_include_directories(test_reproducible_pictures PRIVATE .)
target_link_libraries(test_reproducible_pictures room_pipelines)
set(hashes ${CMAKE_CURRENT_SOURCE_DIR}/parallel/reproducible.txt)
add_test(NAME parallel/reproducible COMMAND test_reproducible_pictures ${hashes} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
if(NOT TESSERA_SANITIZE)  # the scripts' builds are their own
  add_test(NAME backend/reproducible_builds COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/backend/test_reproducible_builds.sh
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  add_test(NAME parallel/reproducible_aarch64
           COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/parallel/test_reproducible_aarch64.sh ${MPI_C_INCLUDE_DIRS}
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(parallel/reproducible_aarch64 PROPERTIES TIMEOUT 900)
endif()
foreach(ranks 2 3 4)
  add_test(NAME parallel/reproducible-${ranks} COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} $<TARGET_FILE:test_reproducible_pictures> ${hashes}
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(parallel/reproducible-${ranks} PROPERTIES ENVIRONMENT "${mpi_environment}" TIMEOUT 900)
endforeach()
